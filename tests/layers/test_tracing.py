"""What is recorded in place of operations on sizes gives what they give."""

import pytest
import torch
import torch.nn.functional as F

from moir.layers import local_pool, padding, tracing, views
from moir.networks import moce_ir_expert

SIZES = [(1, 1), (7, 13), (64, 64), (65, 130), (130, 200), (300, 63)]


@pytest.mark.parametrize("size", SIZES)
def test_padding_crops_and_means_of_any_size(size):
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    for multiple in (1, 4, 16):
        assert torch.equal(tracing.pad_to_multiple(x, multiple), padding.pad_to_multiple(x, multiple))
    assert torch.equal(tracing.reflect_pad(x, 2, 3, 5, 70), padding.reflect_pad(x, 2, 3, 5, 70))
    assert torch.equal(tracing.native_crops(x, views.VIEW, views.GRID), views.native_crops(x))
    torch.testing.assert_close(tracing.adaptive_mean(x, 64), F.adaptive_avg_pool2d(x, 64), atol=1e-6, rtol=0)
    for kernel in ((24, 24), (7, 50), (50, 7), (1000, 1000)):
        wanted = local_pool.local_mean(x, kernel).expand_as(x)
        torch.testing.assert_close(tracing.local_mean(x, kernel), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("window", [4, 8, 16, 32])
def test_the_window_convolution_by_matrices_is_the_one_by_fourier_transform(window):
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 3, 37, 50, generator=generator) for _ in range(2))
    wanted = moce_ir_expert.window_circular_convolution(q, k, window)
    got = tracing.window_circular_convolution(q, k, window)
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-5)


def test_a_trace_holds_for_sizes_it_was_not_recorded_at():
    traced = torch.jit.trace(lambda x: padding.pad_to_multiple(x, 8), torch.rand(1, 3, 9, 9), check_trace=False)
    x = torch.rand(2, 3, 30, 17)
    assert torch.equal(traced(x), padding.pad_to_multiple(x, 8))
