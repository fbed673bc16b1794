import pytest
import torch
import torch.nn.functional as F

from moir.base.errors import InvalidValueError, UnknownNameError
from moir.layers.padding import pad_to_multiple
from moir.networks.base import PLACE
from moir.networks.promptir import PromptGenerator, prompt_grid, promptir
from moir.networks.promptir import test_promptir as tiny_promptir

UNUSED = ("chnl_reduce", "reduce_noise_channel")


def test_published_size() -> None:
    with torch.device("meta"):
        model = promptir()
    count = sum(p.numel() for p in model.parameters())
    assert round(count / 1e6, 2) == 35.59  # what comparison tables print
    assert count == 35_592_263
    assert model.prompt3.prompt_param.shape == (1, 5, 320, 16, 16)
    assert model.noise_level3.norm1.body.weight.shape == (704,)


def test_prompt_generator_mixes_by_the_features() -> None:
    generator = PromptGenerator(4, 6, 3, 5)
    features = torch.randn(2, 4, 7, 9)
    weights = generator.weights(features)
    expected = F.linear(features.mean((2, 3)), generator.linear_layer.weight, generator.linear_layer.bias)
    torch.testing.assert_close(weights, expected.softmax(1))
    prompt = generator(weights, 7, 9)
    for picture in range(2):
        mixed = sum(weights[picture, n] * generator.prompt_param[0, n] for n in range(3))
        resized = F.interpolate(mixed[None], (7, 9), mode="bilinear")
        torch.testing.assert_close(prompt[picture], generator.conv3x3(resized)[0], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_batch_equals_singles_at_any_size() -> None:
    model = tiny_promptir().eval()
    for height, width in [(1, 1), (7, 13), (33, 40)]:
        x = torch.rand(3, 3, height, width) * torch.tensor([0.1, 0.5, 1.0]).view(-1, 1, 1, 1)
        output = model(x)
        assert output.shape == x.shape
        torch.testing.assert_close(output, torch.cat([model(p) for p in x.split(1)]), rtol=0, atol=1e-6)
        assert torch.equal(output, model(pad_to_multiple(x, 8))[..., :height, :width])
        torch.testing.assert_close(output, model(x, model.analyse(x)), rtol=0, atol=1e-6)


@torch.no_grad()
def test_context_carries_the_prompt_weights_to_tiles() -> None:
    model = tiny_promptir().eval()
    picture = torch.rand(1, 3, 16, 32)
    context = model.analyse(picture)
    assert {name: tuple(value.shape) for name, value in context.items()} == {
        "prompt1": (1, 5),
        "prompt2": (1, 5),
        "prompt3": (1, 5),
    }
    tiles = torch.cat([picture[..., :16], picture[..., 16:]])
    shared = model(tiles, context)
    assert not torch.equal(shared, model(tiles))
    one_hot = {name: F.one_hot(torch.zeros(1, dtype=torch.long), 5).float() for name in context}
    assert not torch.equal(shared, model(tiles, one_hot))
    with pytest.raises(InvalidValueError, match="prompt3"):
        model(tiles, {})


@torch.no_grad()
@pytest.mark.parametrize("stride", [2, 4, 8])
def test_tiles_get_their_part_of_the_stretched_prompt(stride: int) -> None:
    generator = PromptGenerator(4, 6, 3, 5)
    generator.conv3x3 = torch.nn.Identity()  # what lies around a tile is for the overlap
    weights = torch.rand(2, 3).softmax(1)
    for height, width in [(141, 66), (30, 97), (1000, 1003)]:  # padded to multiples of 8
        whole = generator(weights, -(-height // 8) * 8 // stride, -(-width // 8) * 8 // stride)
        corners = [(8, 16), ((height - 9) // 8 * 8, (width - 9) // 8 * 8)]  # the second reaches into the padding
        rows, columns = 16 // stride, 16 // stride
        place = torch.tensor([(top, left, height, width) for top, left in corners])
        parts = generator(weights, rows, columns, prompt_grid(place, rows, columns, stride))
        for part, prompt, (top, left) in zip(parts, whole, corners, strict=True):
            wanted = prompt[:, top // stride :, left // stride :][:, :rows, :columns]
            torch.testing.assert_close(part, wanted, atol=2e-5, rtol=0)


@torch.no_grad()
def test_tiles_that_know_their_place_are_parts_of_the_whole_picture() -> None:
    torch.manual_seed(0)
    model = tiny_promptir().eval()
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape))  # so that prompts and attention matter
    reach = 104  # how far the network sees, given the maps of attention
    x = torch.rand(1, 3, 229, 230)
    context = model.measure(x, model.analyse(x))
    whole = model(x, context)[..., 2 * reach :, :]
    place = torch.tensor([[reach, 0, 229, 230], [reach, reach, 229, 230]])
    tiles = torch.cat([x[..., reach:, : 230 - reach], x[..., reach:, reach:]])
    left, right = model(tiles, {**context, PLACE: place})[..., reach:, :].split(1)
    torch.testing.assert_close(left[..., : 230 - 2 * reach], whole[..., : 230 - 2 * reach], atol=2e-5, rtol=0)
    torch.testing.assert_close(right[..., reach:], whole[..., 2 * reach :], atol=2e-5, rtol=0)
    untold = model(tiles, context)[1:, :, reach:, reach:]
    assert (untold - whole[..., 2 * reach :]).abs().max() > 1e-2
    with pytest.raises(InvalidValueError, match="3 pictures"):
        model(tiles, {**context, PLACE: place[[0, 0, 1]]})


@torch.no_grad()
def test_tiles_know_their_place_in_bf16() -> None:
    model = tiny_promptir().eval()
    x = torch.rand(1, 3, 40, 40)
    context = {**model.analyse(x), PLACE: torch.tensor([[8000, 4000, 9001, 9001]])}
    exact = model(x, context)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(x, context)
    assert (rough - exact).abs().max() < 0.05 * (exact - x).abs().max()


def test_backward_reaches_all_but_the_unused_convolutions() -> None:
    model, x = tiny_promptir(), torch.rand(2, 3, 16, 24)
    exact = model(x)
    exact.square().mean().backward()
    for name, parameter in model.named_parameters():
        if name.startswith(UNUSED):
            assert parameter.grad is None
            assert not parameter.requires_grad
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rough = model(x)
    error, residual = (rough - exact).square().mean().sqrt(), (exact - x).square().mean().sqrt()
    assert 0 < error < 0.03 * residual


def test_options() -> None:
    with pytest.raises(UnknownNameError, match="decoder"):
        tiny_promptir(decode=True)
    for wrong in ({"decoder": False}, {"out_channels": 1}, {"prompt_dims": (8,)}, {"heads": (1,)}):
        with pytest.raises(InvalidValueError):
            tiny_promptir(**wrong)
