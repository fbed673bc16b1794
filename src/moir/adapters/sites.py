"""Where adapters go: rules over the types of modules that the networks are made of."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from moir.adapters.base import Switchable
from moir.adapters.layout import Layout
from moir.base.errors import InvalidValueError
from moir.layers.layer_norm import ChannelLayerNorm
from moir.layers.lora_conv import LoRAConv2d

T = TypeVar("T")

Kind = type[nn.Module] | str
"""A type of module: the class, or ``"module:Class"``, so that a network that is not in use need not be imported."""


@dataclass(frozen=True)
class Rule:
    """The halves of a block, as names of its submodules.

    Attributes:
        entry: Takes the (normalised) input of the feed-forward half; None: there is no such half.
        exit: Gives that half's output, before it is added to the block's.
        attention: Gives the other half's output; ``""``: the block itself; None: there is no such half.
        layout: Of all three.
    """

    entry: str | None
    exit: str | None
    attention: str | None
    layout: Layout = "nchw"


RULES: dict[Kind, Rule] = {
    "moir.layers.transformer_block:TransformerBlock": Rule("ffn", "ffn", "attn"),
    "moir.networks.compact:Block": Rule("conv1", "conv2", None),
    "moir.networks.dehazeformer_blocks:Block": Rule("mlp", "mlp", "attn"),
    "moir.networks.edt_body:Block": Rule("mlp", "mlp", "proj", "nhwc"),
    "moir.networks.ipt_body:Layer": Rule("linear1", "linear2", "self_attn", "lnc"),
    "moir.networks.moce_ir_blocks:EncoderBlock": Rule("ffn", "ffn", "mixer"),
    "moir.networks.moce_ir_blocks:DecoderBlock": Rule("ffn", "ffn", "mixer"),
    "moir.networks.nafnet:NAFBlock": Rule("conv4", "conv5", "conv3"),
    "moir.networks.retinexformer:IlluminationGuidedAttention": Rule(None, None, ""),
    "moir.networks.retinexformer:NormedFeedForward": Rule("fn", "fn", None),
}
"""Blocks by type; subclasses count. A network without any of them is adapted beside its convolutions."""

UNTOUCHED: dict[Kind, str] = {
    Switchable: "adapters themselves",
    "moir.networks.compact:Estimator": "decides for a picture",
    "moir.networks.moce_ir_blocks:ComplexityAdapter": "decides for a picture, and each expert sees only some",
    "moir.networks.dehazeformer_blocks:RescaleLayerNorm": "normalises a picture as a whole",
}
"""Parts of blocks that are never adapted, and why."""

NORMS: dict[Kind, Layout] = {
    nn.LayerNorm: "nhwc",
    ChannelLayerNorm: "nchw",
    "moir.networks.nafnet:LayerNorm2d": "nchw",
}
"""Norms with a weight per channel, and where their channels are; subclasses count."""

IN_PROJECTION = "in_proj_adapter"
"""The place that an attention with a fused projection has for adapters of it."""


@dataclass(frozen=True)
class BlockSite:
    """A block, with its halves found.

    Attributes:
        path: The block's name in the network.
        host: The block.
        entry, exit: Of the feed-forward half; None: it has none.
        attention: The other half.
        channels, out_channels: Of the input of ``entry`` and of the outputs.
        layout: Of all of them.
    """

    path: str
    host: nn.Module
    entry: nn.Module | None
    exit: nn.Module | None
    attention: nn.Module | None
    channels: int
    out_channels: int
    layout: Layout


@dataclass(frozen=True)
class LayerSite:
    """A layer with a weight: linear, convolution, norm, or an attention with a fused projection."""

    path: str
    layer: nn.Module


def block_sites(network: nn.Module) -> list[BlockSite]:
    """The blocks of a network; without any, its convolutions that keep the size, each as a block of its own.

    Raises:
        InvalidValueError: There is nothing of the kind, or it is a tree of whole networks.
    """
    if hasattr(network, "experts") and hasattr(network, "decide"):
        raise InvalidValueError(
            f"{type(network).__name__} is a tree of whole networks; attach the adapter to one of its experts"
        )
    sites = []
    for path, module in _walk(network):
        rule = _of_type(module, RULES)
        if rule is not None:
            entry, leave, attention = (_part(module, name) for name in (rule.entry, rule.exit, rule.attention))
            width = _in_channels(_first_layer(entry if entry is not None else module))
            sites.append(BlockSite(path, module, entry, leave, attention, width, width, rule.layout))
    if not sites:
        for path, module in _walk(network):
            if isinstance(module, nn.Conv2d) and _keeps_size(module):
                width, out = module.in_channels, module.out_channels
                sites.append(BlockSite(path, module, module, module, None, width, out, "nchw"))
    if not sites:
        raise InvalidValueError(
            f"{type(network).__name__} has no block that adapters know and no 3x3 convolution that keeps the size; "
            "add a rule for its blocks to moir.adapters.sites.RULES"
        )
    return sites


def layer_sites(network: nn.Module, kinds: tuple[type[nn.Module], ...], *, norms: bool = False) -> list[LayerSite]:
    """The layers of these kinds in the network's blocks.

    Args:
        network: The network.
        kinds: Types; a :class:`~moir.layers.lora_conv.LoRAConv2d` counts as a convolution.
        norms: Also the norms that :func:`norm_layout` knows.

    Raises:
        InvalidValueError: See :func:`block_sites`.
    """
    wanted = (*kinds, LoRAConv2d) if nn.Conv2d in kinds else kinds
    found: dict[str, nn.Module] = {}
    for site in block_sites(network):
        for name, module in _walk(site.host):
            if isinstance(module, wanted) or (norms and norm_layout(module) is not None):
                found[".".join(filter(None, (site.path, name)))] = module
    return [LayerSite(path, module) for path, module in found.items()]


def projection_sites(network: nn.Module) -> list[LayerSite]:
    """The attentions that have a place for adapters of their fused projection."""
    return [LayerSite(path, module) for path, module in _walk(network) if IN_PROJECTION in module._modules]


def norm_layout(module: nn.Module) -> Layout | None:
    """Where a norm with a weight per channel has its channels; None: it is no such norm."""
    return _of_type(module, NORMS)


def weight_holder(layer: nn.Module) -> nn.Module:
    """The module whose ``weight`` and ``bias`` a layer uses: mostly itself."""
    if isinstance(layer, LoRAConv2d):
        return layer.conv
    return layer.body if isinstance(layer, ChannelLayerNorm) else layer


def _walk(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Modules with their names, without what is never adapted, and without the convolution inside a LoRAConv2d."""
    if _of_type(module, UNTOUCHED) is not None:
        return
    yield prefix, module
    if isinstance(module, LoRAConv2d):
        return
    for name, child in module.named_children():
        yield from _walk(child, f"{prefix}.{name}" if prefix else name)


def _of_type(module: nn.Module, table: Mapping[Kind, T]) -> T | None:
    """What a table says of a module's type or, failing that, of its nearest base; None: nothing."""
    for base in type(module).__mro__:
        for kind in (base, f"{base.__module__}:{base.__qualname__}"):
            if kind in table:
                return table[kind]
    return None


def _part(module: nn.Module, name: str | None) -> nn.Module | None:
    return None if name is None else module.get_submodule(name)


def _first_layer(module: nn.Module) -> nn.Module:
    return next(m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear))


def _in_channels(layer: nn.Module) -> int:
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels
    assert isinstance(layer, nn.Linear)
    return layer.in_features


def _keeps_size(conv: nn.Conv2d) -> bool:
    """Whether a convolution looks around, mixes channels, keeps the size, and is not at the picture's end."""
    sides = zip(conv.kernel_size, conv.padding, strict=True) if not isinstance(conv.padding, str) else ()
    same = conv.padding == "same" or (bool(conv.padding) and all(2 * int(p) == k - 1 for k, p in sides))
    looks = conv.kernel_size[0] > 1 and conv.stride == (1, 1) and conv.groups == 1 and conv.dilation == (1, 1)
    return same and looks and min(conv.in_channels, conv.out_channels) > 3
