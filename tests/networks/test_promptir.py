import pytest
import torch
import torch.nn.functional as F

from moir.base.errors import InvalidValueError, UnknownNameError
from moir.layers.padding import pad_to_multiple
from moir.networks.promptir import PromptGenerator, promptir
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
