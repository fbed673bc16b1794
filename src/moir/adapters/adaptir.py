"""The AdaptIR module: local, frequency and channel experts of different kinds, joined by crossed gates.

Paper: "Parameter Efficient Adaptation for Image Restoration with Heterogeneous Mixture-of-Experts", NeurIPS 2024,
arXiv 2312.08881. State-dict names and shapes are the published ones.
"""

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from moir.adapters.base import Adapter
from moir.adapters.layout import Layout, from_map, to_map
from moir.base.errors import InvalidValueError
from moir.base.names import check_name
from moir.layers.precision import at_least_float32

Form = Literal["published", "paper"]

QUIET = 1e-6
"""Below this magnitude a frequency's phase is rounding noise: it is used as it is, but not trained through."""


def default_hidden(dim: int) -> int:
    """Inner width for features of ``dim`` channels: the even number at or below the square root, at least 4.

    That is what both published backbones use.

    Examples:
        >>> default_hidden(576), default_hidden(180)  # IPT, EDT
        (24, 12)
    """
    return max(4, 2 * int(math.sqrt(dim) / 2))


class AdaptIR(Adapter):
    """AdaptIR (arXiv 2312.08881, section 3.2), in parallel to a frozen layer.

    On features of ``hidden`` channels (1x1 convolution and batch norm), three experts that see different things:

    - local interaction: a depthwise 3x3 convolution whose kernels are a product of two low-rank matrices;
    - frequency affine: amplitudes and phases of the whole map, each scaled and shifted per channel;
    - channel gating: a weight per channel from a softmax-weighted mean over all positions.

    Adaptive feature ensemble: the local result is gated per channel by the frequency result, the frequency result per
    position by the local one; their sum times the channel gating goes through a 1x1 convolution that starts at zero.

    Two of the experts see the whole map: a tile gives something else than the picture it is from.

    ``form="published"`` is what the published code and checkpoints do: the frequency expert returns the magnitude of
    the inverse transform. ``form="paper"`` is the text: no magnitude, a convolution (1x1, the identity at first) after
    the inverse transform instead.

    Args:
        dim: Channels of the input.
        out_dim: Channels of the output; None: as the input.
        hidden: Channels inside, even; None: :func:`default_hidden`.
        form: See above.
        layout: Of input and output.

    Raises:
        InvalidValueError: A width inside that is odd or below 2.
        UnknownNameError: Another ``form``.
    """

    def __init__(
        self,
        dim: int,
        out_dim: int | None = None,
        hidden: int | None = None,
        form: Form = "published",
        layout: Layout = "nchw",
    ) -> None:
        super().__init__()
        check_name(form, get_args(Form), "form of AdaptIR")
        hidden = default_hidden(dim) if hidden is None else hidden
        if hidden < 2 or hidden % 2:
            raise InvalidValueError(f"hidden={hidden}: AdaptIR needs an even width of 2 or more inside")
        self.form, self.layout = form, layout
        rank, interaction = hidden // 2, max(min(3, hidden // 2), hidden // 8)
        self.conv_weight_A = nn.Parameter(torch.empty(hidden, rank))
        self.conv_weight_B = nn.Parameter(torch.empty(rank, 9))
        self.conv_bias = nn.Parameter(torch.zeros(hidden))
        self.head = nn.Conv2d(dim, hidden, 1)
        self.BN = nn.BatchNorm2d(hidden)
        self.amp_fuse = nn.Conv2d(hidden, hidden, 1, groups=hidden)
        self.pha_fuse = nn.Conv2d(hidden, hidden, 1, groups=hidden)
        if form == "paper":
            self.freq_conv = nn.Conv2d(hidden, hidden, 1)
        self.compress = nn.Conv2d(hidden, 1, 1)
        self.proj = nn.Sequential(nn.Linear(hidden, rank), nn.GELU(), nn.Linear(rank, hidden))
        self.tail = nn.Conv2d(hidden, dim if out_dim is None else out_dim, 1, bias=False)
        self.channel_interaction = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(hidden, interaction, 1),
            nn.GELU(),
            nn.Conv2d(interaction, hidden, 1),
        )
        self.spatial_interaction = nn.Conv2d(hidden, 1, 1)
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """The published start: the output is 0, both gates are 1/2, and the frequency expert changes nothing."""
        nn.init.kaiming_uniform_(self.conv_weight_A, a=math.sqrt(5))
        nn.init.kaiming_uniform_(self.conv_weight_B, a=math.sqrt(5))
        for fuse in (self.amp_fuse, self.pha_fuse):
            fuse.weight.fill_(1)
        zero = [self.amp_fuse.bias, self.pha_fuse.bias, self.conv_bias, self.tail.weight]
        gates = (self.channel_interaction[3], self.spatial_interaction)
        zero += [parameter for gate in gates for parameter in gate.parameters()]
        if self.form == "paper":
            nn.init.dirac_(self.freq_conv.weight)
            zero.append(self.freq_conv.bias)
        for parameter in zero:
            assert parameter is not None
            parameter.zero_()

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """What is added to the output of the layer beside: from its input, both in ``layout``."""
        return from_map(self.restore(to_map(x, self.layout)), self.layout)

    def restore(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, dim, H, W) to (N, out_dim, H, W)."""
        z = self._normalise(self.head(x))
        local, frequency = self.local(z), self.frequency(z)
        gate = torch.sigmoid(self.channel_interaction(frequency.to(z.dtype)))
        where = torch.sigmoid(self.spatial_interaction(local))
        out: torch.Tensor = self.tail(self.channels(z) * (gate * local + where * frequency.to(z.dtype)))
        return out

    def local(self, z: torch.Tensor) -> torch.Tensor:
        """Local interaction: (N, hidden, H, W) to the same shape."""
        kernel = (self.conv_weight_A @ self.conv_weight_B).view(-1, 1, 3, 3)
        return F.conv2d(z, kernel, self.conv_bias, padding=1, groups=z.shape[1])

    def frequency(self, z: torch.Tensor) -> torch.Tensor:
        """Frequency affine: (N, hidden, H, W) to the same shape, in float32 (there is no bfloat16 transform)."""
        with torch.autocast(z.device.type, enabled=False):
            spectrum = torch.fft.rfft2(at_least_float32(z), norm="ortho")
            magnitude = spectrum.abs()
            # The gradient of a phase is 1 / magnitude: it would blow up where there is nothing.
            phase = torch.angle(torch.where(magnitude < QUIET, spectrum.detach(), spectrum))
            amplitude, phase = _affine(self.amp_fuse, magnitude), _affine(self.pha_fuse, phase)
            spectrum = torch.complex(amplitude * phase.cos(), amplitude * phase.sin())
            back = torch.fft.irfft2(spectrum, s=z.shape[-2:], norm="ortho")
        if self.form == "published":
            return back.abs()
        out: torch.Tensor = self.freq_conv(back.to(z.dtype))
        return out

    def channels(self, z: torch.Tensor) -> torch.Tensor:
        """Channel gating: (N, hidden, H, W) to (N, hidden, 1, 1)."""
        weights = self.compress(z).flatten(2).softmax(dim=-1)  # (N, 1, HW)
        pooled = (z.flatten(2) * weights).sum(dim=-1)
        out: torch.Tensor = self.proj(pooled)
        return out[..., None, None]

    def _normalise(self, z: torch.Tensor) -> torch.Tensor:
        if self.training and z.numel() == z.shape[1]:  # one picture of one pixel has no variance
            norm = self.BN
            return F.batch_norm(z, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
        out: torch.Tensor = self.BN(z)
        return out


def _affine(fuse: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """A depthwise 1x1 convolution as the multiplication it is, in the precision of ``x``."""
    assert fuse.bias is not None
    return torch.addcmul(fuse.bias.to(x.dtype)[:, None, None], fuse.weight.to(x.dtype)[:, 0], x)
