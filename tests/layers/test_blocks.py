import pytest
import torch
import torch.nn.functional as F

from moir.base.errors import InvalidValueError, UnknownNameError
from moir.layers.gated_feed_forward import GatedFeedForward
from moir.layers.layer_norm import ChannelLayerNorm
from moir.layers.padding import pad_to_multiple
from moir.layers.precision import at_least_float32
from moir.layers.resample import Downsample, Upsample
from moir.layers.transformer_block import TransformerBlock
from moir.layers.transposed_attention import TransposedAttention, transposed_attention


def randomise(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))


def test_layer_norm_with_bias_is_layer_norm_over_channels() -> None:
    norm, x = ChannelLayerNorm(6), torch.randn(2, 6, 3, 4) + 2
    randomise(norm)
    expected = F.layer_norm(x.permute(0, 2, 3, 1), (6,), norm.body.weight, norm.body.bias, 1e-5)
    torch.testing.assert_close(norm(x), expected.permute(0, 3, 1, 2), rtol=1e-5, atol=1e-5)
    assert list(norm.state_dict()) == ["body.weight", "body.bias"]


def test_layer_norm_bias_free_keeps_the_mean() -> None:
    norm, x = ChannelLayerNorm(6, "BiasFree"), torch.randn(2, 6, 3, 4) + 2
    randomise(norm)
    expected = x / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt() * norm.body.weight.view(-1, 1, 1)
    torch.testing.assert_close(norm(x), expected)
    assert list(norm.state_dict()) == ["body.weight"]


def test_layer_norm_takes_statistics_in_float32() -> None:
    norm = ChannelLayerNorm(64)
    x = (torch.randn(1, 64, 4, 4) + 100).bfloat16()  # at 100, bfloat16 has steps of a half
    out = norm(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), norm(x.float()), rtol=1e-2, atol=1e-2)
    with pytest.raises(UnknownNameError, match="BiasFree"):
        ChannelLayerNorm(6, "Biasfree")


def test_transposed_attention_against_the_formula() -> None:
    q, k, v = torch.randn(3, 2, 6, 3, 5)
    temperature = torch.tensor([0.5, 2.0]).view(2, 1, 1)
    out = transposed_attention(q, k, v, temperature)
    for picture in range(2):
        for head in range(2):
            rows = slice(3 * head, 3 * head + 3)
            a, b, c = (t[picture, rows].reshape(3, -1) for t in (q, k, v))
            cosines = torch.stack([torch.stack([torch.cosine_similarity(r, s, dim=0) for s in b]) for r in a])
            expected = (cosines * temperature[head]).softmax(1) @ c
            torch.testing.assert_close(out[picture, rows].reshape(3, -1), expected, rtol=1e-4, atol=1e-5)


def test_attention_of_a_black_picture_is_finite() -> None:
    attention, x = TransposedAttention(4, 2, bias=False), torch.zeros(1, 4, 8, 8, requires_grad=True)
    attention(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    with pytest.raises(InvalidValueError, match="5 channels cannot be split into 2 heads"):
        TransposedAttention(5, 2, bias=False)


def test_gated_feed_forward_against_the_formula() -> None:
    block, x = GatedFeedForward(5, 2.66, bias=True), torch.randn(2, 5, 4, 6)
    assert block.project_out.weight.shape == (5, 13, 1, 1)  # int(5 * 2.66)
    hidden = F.conv2d(block.project_in(x), block.dwconv.weight, block.dwconv.bias, padding=1, groups=26)
    expected = block.project_out(F.gelu(hidden[:, :13]) * hidden[:, 13:])
    torch.testing.assert_close(block(x), expected)


def test_resampling_moves_pixels_into_channels_and_back() -> None:
    down, up, x = Downsample(4), Upsample(8), torch.randn(2, 4, 6, 8)
    small = down(x)
    assert small.shape == (2, 8, 3, 4)
    assert up(small).shape == x.shape
    # Channel 2 of 2 after the convolution, pixel (1, 0) of each 2x2 square.
    torch.testing.assert_close(small[:, 4 + 2], down.body[0](x)[:, 1, 1::2, 0::2])
    torch.testing.assert_close(up(small)[:, 1, 1::2, 0::2], up.body[0](small)[:, 4 + 2])
    assert list(down.state_dict()) == list(up.state_dict()) == ["body.0.weight"]


def test_transformer_block_is_two_residuals() -> None:
    block, x = TransformerBlock(4, 2, 2.0), torch.randn(1, 4, 5, 6)
    middle = x + block.attn(block.norm1(x))
    torch.testing.assert_close(block(x), middle + block.ffn(block.norm2(middle)))
    assert "norm1.body.weight" in block.state_dict()
    assert "attn.qkv_dwconv.weight" in block.state_dict()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 13), (8, 16), (4, 100), (3, 9)])
def test_padding(height: int, width: int) -> None:
    x = torch.rand(1, 2, height, width)
    y = pad_to_multiple(x, 8)
    assert y.shape[-2] % 8 == y.shape[-1] % 8 == 0
    assert y.shape[-2] - height < 8
    assert y.shape[-1] - width < 8
    assert torch.equal(y[..., :height, :width], x)
    if (height, width) == (7, 13):  # mirrored without repeating the edge
        assert torch.equal(y[..., 7, :13], x[..., 5, :])
        assert torch.equal(y[..., :7, 13], x[..., 11])
    if (height, width) == (3, 9):  # too small to mirror: the edge repeated
        assert torch.equal(y[..., 7, :9], x[..., 2, :])


def test_at_least_float32() -> None:
    for given, wanted in [
        ("bfloat16", "float32"),
        ("float16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
    ]:
        assert at_least_float32(torch.zeros(2, dtype=getattr(torch, given))).dtype == getattr(torch, wanted)
