import pytest
import torch

from moir.base.errors import InvalidValueError
from moir.layers.padding import pad_to_multiple
from moir.networks.unet import test_unet as tiny_unet
from moir.networks.unet import unet


def test_size_of_the_original() -> None:
    with torch.device("meta"):
        model = unet()
    assert sum(p.numel() for p in model.parameters()) == 31_031_875
    widths = [module[0].out_channels for module in model.encoder]
    assert widths == [64, 128, 256, 512, 1024]
    kinds = {type(m).__name__ for m in model.modules() if not list(m.children()) and list(m.parameters())}
    assert kinds == {"Conv2d", "ConvTranspose2d"}


@pytest.mark.parametrize("levels", [1, 2, 4])
@torch.no_grad()
def test_any_size(levels: int) -> None:
    model = tiny_unet(levels=levels).eval()
    for height, width in [(1, 1), (2, 9), (33, 40)]:
        x = torch.rand(2, 3, height, width)
        output = model(x)
        torch.testing.assert_close(
            output, model(pad_to_multiple(x, 2 ** (levels - 1)))[..., :height, :width], rtol=0, atol=1e-6
        )
        torch.testing.assert_close(output, torch.cat([model(p) for p in x.split(1)]), rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_tile_with_surroundings_gives_what_the_picture_gives(uneven: torch.Tensor) -> None:
    model = tiny_unet().eval()
    torch.testing.assert_close(model(uneven[..., :192])[..., :128], model(uneven)[..., :128], rtol=0, atol=1e-6)


def test_it_learns() -> None:
    model, clean = tiny_unet(width=8), torch.rand(4, 3, 16, 16)
    dark = clean * 0.5
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(30):
        loss = (model(dark) - clean).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.6 * (dark - clean).abs().mean()


@pytest.mark.parametrize("wrong", [{"levels": 6}, {"levels": 0}, {"convs": 0}, {"width": 0}])
def test_wrong_options(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidValueError, match=next(iter(wrong))):
        tiny_unet(**wrong)
