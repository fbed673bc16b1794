"""The decoder block of MoCE-IR for one picture: shared attention, the chosen experts, and cross attention.

Chains of 1x1 convolutions without anything between them are multiplied together beforehand. With n the normalised
features and v the values of the shared attention, A the attention map of this picture:

- shared = W_out A v is never formed; what reads it, reads v through a matrix of its own: ``W W_out A``.
- special = W_1 n + b is never formed either: an expert's queries, keys and values read n through ``W_q W_down W_1``,
  and its sum with what the expert adds goes through ``W_q' W_proj`` straight into the queries of the cross attention.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from moir.experts.gate import ExpertGate, Routing
from moir.layers.transposed_attention import TransposedAttention
from moir.networks.moce_ir_blocks import CrossAttention, DecoderBlock
from moir.networks.moce_ir_expert import ComplexityExpert
from moir.networks.statistics import Statistics
from moir.runtime.fast.blocks import ChannelGram, FeedForward, Norm, add_mixed
from moir.runtime.fast.layout import Convolution, Strip, empty_map, matrix, pointwise, strips, tokens
from moir.runtime.fast.window import circular_convolution


class Expert(nn.Module):
    """One complexity expert, from the block's normalised features and shared values to the cross attention's queries.

    Args:
        expert: The network's.
        before: The block's 1x1 convolution before the experts, which has a bias.
        after: (C, C) matrix of everything between the experts and the queries' depthwise convolution.
        dtype: Precision of the arithmetic.
    """

    down_shared: torch.Tensor

    def __init__(self, expert: ComplexityExpert, before: nn.Conv2d, after: torch.Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        body = expert.body
        down = matrix(expert.proj[0])
        read = torch.cat([matrix(body.q), matrix(body.kv)]) @ down
        assert before.bias is not None
        bias = read @ before.bias.detach().double()
        rank = len(down)
        read = read @ matrix(before)
        self.window = body.window
        self.q = pointwise(read[:rank], bias[:rank], dtype)
        self.q_depthwise = Convolution.of(body.q_dwconv, dtype)
        self.k = pointwise(read[rank : 2 * rank], bias[rank : 2 * rank], dtype)
        self.k_depthwise = Convolution.of(body.kv_dwconv, dtype, slice(rank))
        self.v = pointwise(read[2 * rank :], bias[2 * rank :], dtype)
        self.v_depthwise = Convolution.of(body.kv_dwconv, dtype, slice(rank, 2 * rank))
        self.norm = Norm(body.norm, dtype)
        self.project = Convolution.of(body.proj_out, dtype)
        self.register_buffer("down_shared", matrix(expert.proj[1]).float())
        self.up = pointwise(after @ matrix(expert.proj[2]), None, dtype)

    @property
    def halo(self) -> int:
        """Rows that the expert's convolutions reach beyond their own."""
        return max(self.q_depthwise.padding, self.k_depthwise.padding)

    def forward(self, normed: torch.Tensor, v: torch.Tensor, shared: torch.Tensor, strip: Strip) -> torch.Tensor:
        """What the expert adds to the queries.

        Args:
            normed: (1, C, H, W), the whole map; of it, the strip and its halo are read.
            v: (1, C, H, W), the values of the shared attention, likewise.
            shared: (C, C) float32, the matrix that makes the shared features of the values.
            strip: Rows to compute; they start at a window.
        """
        wide = strip.widened(normed)
        q = strip.crop(self.q_depthwise(self.q(wide)))
        k = strip.crop(self.k_depthwise(self.k(wide)))
        mixed = self.norm(circular_convolution(q, k, self.window))
        mixed = self.project(mixed.mul_(strip.crop(self.v_depthwise(self.v(wide)))))
        down = (self.down_shared @ shared).to(v.dtype)[:, :, None, None]
        gate = F.silu(F.conv2d(strip.of(v), down), inplace=True)
        out: torch.Tensor = self.up(mixed.mul_(gate))
        return out


class Gate(nn.Module):
    """A block's gate, on the mean of the normalised features instead of the projected ones: the mean of ``W n + b``.

    Args:
        gate: The network's.
        before: The block's 1x1 convolution before the experts.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    frequency: torch.Tensor

    def __init__(self, gate: ExpertGate, before: nn.Conv2d) -> None:
        super().__init__()
        linear = gate.gate[2]
        assert isinstance(linear, nn.Linear)
        assert before.bias is not None
        weight = linear.weight.detach().double()
        self.name = gate.name
        self.topk = gate.topk
        self.register_buffer("weight", (weight @ matrix(before)).float())
        self.register_buffer("bias", (weight @ before.bias.detach().double()).float())
        self.register_buffer("frequency", gate.freq_gate.weight.detach().float().clone())

    def forward(self, mean: torch.Tensor, embedding: torch.Tensor) -> Routing:
        """Choose from the mean of the normalised features (1, C) and the embedding (1, E), float32, without noise."""
        logits = F.linear(mean, self.weight, self.bias) + F.linear(embedding, self.frequency)
        gates, experts = logits.softmax(dim=1).topk(self.topk, dim=1)
        return Routing(experts, gates, None)


Router = Callable[[Gate, torch.Tensor], Routing]
"""Asks a gate about the mean of the normalised features (1, C), or recalls what was decided before."""


class SharedAttention(nn.Module):
    """The block's transposed attention, left as values and the matrix that mixes them.

    Args:
        attention: The network's attention, without biases.
        before: The block's 1x1 convolution before it, which has a bias.
        dtype: Precision of the arithmetic.
    """

    temperature: torch.Tensor
    project: torch.Tensor

    def __init__(self, attention: TransposedAttention, before: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__()
        channels = attention.project_out.in_channels
        first, last = slice(2 * channels), slice(2 * channels, 3 * channels)
        assert before.bias is not None
        read = matrix(attention.qkv)
        bias = read @ before.bias.detach().double()
        read = read @ matrix(before)
        self.name = attention.name
        self.qk = pointwise(read[first], bias[first], dtype)
        self.qk_depthwise = Convolution.of(attention.qkv_dwconv, dtype, first)
        self.v = pointwise(read[last], bias[last], dtype)
        self.v_depthwise = Convolution.of(attention.qkv_dwconv, dtype, last)
        self.register_buffer("temperature", attention.temperature.detach().clone())
        self.register_buffer("project", matrix(attention.project_out).float())

    def forward(
        self, norm: Norm, x: torch.Tensor, normed: torch.Tensor, v: torch.Tensor, maps: Statistics | None
    ) -> torch.Tensor:
        """Fill ``normed`` and ``v``, both maps like ``x`` (1, C, H, W); return the matrix (C, C), float32."""
        gram = ChannelGram(x.shape[1])
        for strip in strips(x, self.qk.weight.shape[0], self.qk_depthwise.padding):
            wide = norm(strip.widened(x))
            strip.of(normed).copy_(strip.crop(wide))
            if maps is None or not maps.known:
                gram.add(strip.crop(self.qk_depthwise(self.qk(wide))))
            strip.of(v).copy_(strip.crop(self.v_depthwise(self.v(wide))))
        return self.project @ gram.attention(self.temperature, self.name, maps)


class Cross(nn.Module):
    """The cross attention behind the experts, with the residual around it, in place.

    Args:
        mixer: The network's cross attention; its queries' 1x1 convolution is the experts' business.
        dtype: Precision of the arithmetic.
    """

    temperature: torch.Tensor
    project: torch.Tensor
    read: torch.Tensor

    def __init__(self, mixer: CrossAttention, dtype: torch.dtype) -> None:
        super().__init__()
        channels = mixer.project_out.in_channels
        self.name = mixer.name
        self.q_depthwise = Convolution.of(mixer.q_dwconv, dtype)
        self.k_depthwise = Convolution.of(mixer.kv_dwconv, dtype, slice(channels))
        self.v_depthwise = Convolution.of(mixer.kv_dwconv, dtype, slice(channels, 2 * channels))
        self.register_buffer("read", matrix(mixer.kv).float())
        self.register_buffer("temperature", mixer.temperature.detach().clone())
        self.register_buffer("project", matrix(mixer.project_out).float())

    def forward(
        self,
        x: torch.Tensor,
        queries: torch.Tensor,
        v: torch.Tensor,
        shared: torch.Tensor,
        spare: torch.Tensor,
        maps: Statistics | None,
    ) -> None:
        """Add to ``x`` what the queries (before their depthwise convolution) find; ``spare`` is overwritten.

        All feature maps are (1, C, H, W); ``shared`` (C, C) makes the shared features of the values ``v``; ``maps`` are
        the attention maps that tiles share.
        """
        channels = x.shape[1]
        gram = ChannelGram(channels)
        k_read, v_read = ((self.read @ shared).to(x.dtype)[:, :, None, None]).split(channels)
        for strip in strips(x, 2 * channels, self.k_depthwise.padding):
            wide = strip.widened(v)
            if maps is None or not maps.known:
                q = strip.crop(self.q_depthwise(strip.widened(queries)))
                gram.add(torch.cat([q, strip.crop(self.k_depthwise(F.conv2d(wide, k_read)))], dim=1))
            strip.of(spare).copy_(strip.crop(self.v_depthwise(F.conv2d(wide, v_read))))
        add_mixed(x, spare, self.project @ gram.attention(self.temperature, self.name, maps))


class Decoder(nn.Module):
    """One decoder block for one picture.

    Args:
        block: The network's, with experts of a single pass.
        dtype: Precision of the arithmetic.
    """

    def __init__(self, block: DecoderBlock, dtype: torch.dtype) -> None:
        super().__init__()
        before_shared, before_special = block.proj
        assert isinstance(before_shared, nn.Conv2d)
        assert isinstance(before_special, nn.Conv2d)
        assert before_special.bias is not None
        after = matrix(block.mixer.q) @ matrix(block.adapter.proj_out)
        self.norm = Norm(block.norms[0], dtype)
        self.shared = SharedAttention(block.shared, before_shared, dtype)
        self.gate = Gate(block.adapter.routing, before_special)
        self.experts = nn.ModuleList()
        for single in block.adapter.experts:
            assert isinstance(single, nn.ModuleList)
            expert = single[0]
            assert isinstance(expert, ComplexityExpert)
            self.experts.append(Expert(expert, before_special, after, dtype))
        self.carry = pointwise(after @ matrix(before_special), after @ before_special.bias.detach().double(), dtype)
        self.cross = Cross(block.mixer, dtype)
        self.feed_forward = FeedForward(block.norms[1], block.ffn, dtype)

    def forward(
        self, x: torch.Tensor, spare: torch.Tensor, route: Router, maps: Statistics | None = None
    ) -> torch.Tensor:
        """Map ``x`` (1, C, H, W) into ``spare``, another map like it; ``x`` is overwritten.

        What the experts find acts through the queries of the cross attention, and these through its attention map
        alone: where that is shared and known, the experts need not run.
        """
        normed, v = empty_map(x), empty_map(x)
        shared = self.shared(self.norm, x, normed, v, maps)
        routing = route(self.gate, tokens(normed).mean(0, keepdim=True, dtype=torch.float32))
        if maps is None or not maps.known:
            self._query(normed, v, shared, routing, spare)
        self.cross(x, spare, v, shared, normed, maps)
        out: torch.Tensor = self.feed_forward(x, spare)
        return out

    def _query(
        self, normed: torch.Tensor, v: torch.Tensor, shared: torch.Tensor, routing: Routing, out: torch.Tensor
    ) -> None:
        """The experts' weighted sum, as the cross attention's queries before their depthwise convolution."""
        chosen = routing.experts[0].tolist()
        weights = routing.gates[0].tolist()
        for strip in strips(normed, normed.shape[1]):
            torch.mul(self.carry(strip.of(normed)), sum(weights), out=strip.of(out))
        for number, weight in zip(chosen, weights, strict=True):
            expert = self.experts[number]
            assert isinstance(expert, Expert)
            rank = expert.project.weight.shape[0]
            for strip in strips(normed, max(4 * rank, normed.shape[1] // 2), expert.halo, expert.window):
                strip.of(out).add_(expert(normed, v, shared, strip), alpha=weight)
