"""Every method by its name: which adapters it puts where."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import nn

from moir.adapters.adaptir import AdaptIR, Form, default_hidden
from moir.adapters.base import Adapter
from moir.adapters.bottleneck import AdaptFormer, BottleneckAdapter, MixtureAdapter
from moir.adapters.convolutional import ConvolutionalAdapter
from moir.adapters.low_rank import FacT, FacTCore, LoRA
from moir.adapters.projections import ProjectionFacT, ProjectionLoRA, ProjectionScaleShift
from moir.adapters.prompts import VisualPrompts
from moir.adapters.scale_shift import ScaleShift
from moir.adapters.sites import (
    IN_PROJECTION,
    BlockSite,
    LayerSite,
    block_sites,
    layer_sites,
    norm_layout,
    projection_sites,
    weight_holder,
)
from moir.base.errors import InvalidValueError
from moir.base.names import check_name

NATIVE = "adaptir"
"""The place that a block of IPT and EDT has for an adapter beside its feed-forward half."""

Targets = Literal["projections", "layers"]


@dataclass(frozen=True)
class Placement:
    """An adapter and its place.

    Attributes:
        path: Name of ``host`` in the network.
        host: The module that holds the adapter.
        attribute: Under which name.
        adapter: The adapter.
        entry, exit: Whose input and output it sees; None: the host calls the adapter itself, or nothing does.
        native: Whether the host has this place, empty or not, and calls what is there.
    """

    path: str
    host: nn.Module
    attribute: str
    adapter: nn.Module
    entry: nn.Module | None = None
    exit: nn.Module | None = None
    native: bool = False


def adaptir(
    network: nn.Module, hidden: int | None = None, size: float = 1.0, form: Form = "published"
) -> Iterator[Placement]:
    """AdaptIR beside every feed-forward half.

    Args:
        network: The network.
        hidden: Channels inside; None: by the block's width, see :func:`~moir.adapters.adaptir.default_hidden`.
        size: Scales that default.
        form: ``"published"`` or ``"paper"``.
    """
    if size <= 0:
        raise InvalidValueError(f"size={size}: it scales the width inside, so it must be above 0")

    def make(site: BlockSite) -> Adapter:
        width = hidden or max(2, 2 * round(size * default_hidden(site.channels) / 2))
        return AdaptIR(site.channels, site.out_channels, width, form, site.layout)

    for placement in _beside(network, "adaptir", make):
        if NATIVE in placement.host._modules:  # the block calls it itself
            yield Placement(placement.path, placement.host, NATIVE, placement.adapter, native=True)
        else:
            yield placement


def adaptformer(network: nn.Module, rank: int | None = None, scale: float = 0.1) -> Iterator[Placement]:
    """AdaptFormer beside every feed-forward half.

    Args:
        network: The network.
        rank: Channels inside; None: a 24th of the block's, at least 4.
        scale: Of the change.
    """
    return _beside(
        network,
        "adaptformer",
        lambda s: AdaptFormer(s.channels, s.out_channels, _rank(rank, s.channels, 24), scale, s.layout),
    )


def moe(network: nn.Module, rank: int | None = None, experts: int = 3) -> Iterator[Placement]:
    """A plain mixture of experts beside every feed-forward half.

    Args:
        network: The network.
        rank: Channels inside; None: a 24th of the block's, at least 4.
        experts: Number of experts.
    """
    return _beside(
        network,
        "moe",
        lambda s: MixtureAdapter(s.channels, s.out_channels, _rank(rank, s.channels, 24), experts, s.layout),
    )


def conv(network: nn.Module, rank: int | None = None, widest: int | None = None) -> Iterator[Placement]:
    """A convolutional bottleneck beside every feed-forward half.

    Args:
        network: The network.
        rank: Channels inside; None: an eighth of the block's, from 2 to 6.
        widest: Only beside blocks of at most so many channels, which are a U-net's finest; None: beside the narrowest.

    Raises:
        InvalidValueError: No block is that narrow.
    """
    widths = [site.channels for site in block_sites(network) if site.entry is not None]
    bound = widest or min(widths, default=0)
    if widths and min(widths) > bound:
        raise InvalidValueError(f"widest={widest}: the narrowest block has {min(widths)} channels")
    for site in block_sites(network):
        if site.entry is not None and site.channels <= bound:
            inside = max(2, min(6, site.channels // 8)) if rank is None else rank
            module = ConvolutionalAdapter(site.channels, site.out_channels, inside, site.layout)
            yield Placement(site.path, site.host, "conv", module, site.entry, site.exit)


def vpt(network: nn.Module, count: int = 64) -> Iterator[Placement]:
    """Visual prompts beside every block.

    Args:
        network: The network.
        count: Prompts per block.
    """
    for site in block_sites(network):
        if site.entry is not None and site.channels == site.out_channels:
            prompts = VisualPrompts(site.channels, count=count, layout=site.layout)
            yield Placement(site.path, site.host, "vpt", prompts, site.entry, site.exit)


def adapter(network: nn.Module, rank: int | None = None) -> Iterator[Placement]:
    """A bottleneck after both halves of every block, or after the one that it has.

    Args:
        network: The network.
        rank: Channels inside; None: a 48th of the block's, at least 4.
    """
    for site in block_sites(network):
        for half, leave in (("attention", site.attention), ("feed_forward", site.exit)):
            if leave is not None:
                width = site.out_channels
                module = BottleneckAdapter(width, _rank(rank, width, 48), site.layout)
                yield Placement(site.path, site.host, f"adapter_{half}", module, leave, leave)


def lora(
    network: nn.Module,
    rank: int | None = None,
    alpha: float | None = None,
    targets: Targets | None = None,
    parts: str = "qv",
) -> Iterator[Placement]:
    """LoRA of fused projections, or of every layer of the blocks.

    Args:
        network: The network.
        rank: Rank; None: a 48th of the layer's input channels, at least 4.
        alpha: Changes are scaled by ``alpha / rank``; None: by 1.
        targets: ``"projections"``: fused projections only. ``"layers"``: also every linear layer and ungrouped
            convolution for which the change is smaller than the weight. None: projections where there are some.
        parts: What of a fused projection is changed, some of ``qkv``.
    """
    projections = projection_sites(network)
    if targets is None:
        targets = "projections" if projections else "layers"
    check_name(targets, get_args(Targets), "target of LoRA")
    for site in projections:
        dim = _dim(site)
        yield _projection(site, ProjectionLoRA(dim, _rank(rank, dim, 48), alpha, parts))
    if targets == "layers":
        for site in layer_sites(network, (nn.Linear, nn.Conv2d)):
            layer = weight_holder(site.layer)
            assert isinstance(layer, nn.Linear | nn.Conv2d)
            if isinstance(layer, nn.Conv2d) and layer.groups > 1:
                continue
            width = layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features
            change = LoRA(layer, _rank(rank, width, 48), alpha)
            if sum(p.numel() for p in change.parameters()) < layer.weight.numel():
                yield Placement(site.path, site.layer, "lora", change, site.layer, site.layer)


def ssf(network: nn.Module) -> Iterator[Placement]:
    """A scale and a shift after every norm, projection, linear layer and convolution of the blocks.

    Args:
        network: The network.
    """
    for site in projection_sites(network):
        yield _projection(site, ProjectionScaleShift(_dim(site)))
    for site in layer_sites(network, (nn.Linear, nn.Conv2d), norms=True):
        layer = weight_holder(site.layer)
        if isinstance(layer, nn.Conv2d):
            change = ScaleShift(layer.out_channels, "nchw")
        elif isinstance(layer, nn.Linear):
            change = ScaleShift(layer.out_features, "nhwc")
        else:
            layout = norm_layout(site.layer)
            assert layout is not None
            own = [p for p in weight_holder(layer)._parameters.values() if p is not None]
            if not own:
                continue
            # A norm without a bias is another norm if it gets one.
            change = ScaleShift(own[0].numel(), layout, shift=len(own) == 2)
        yield Placement(site.path, site.layer, "ssf", change, site.layer, site.layer)


def fact(network: nn.Module, rank: int | None = None) -> Iterator[Placement]:
    """FacT-TK: one decomposition per shape of weight, shared by all layers of it.

    Of networks with fused projections, queries, keys, values and outputs of all attentions are changed; of others,
    every linear layer and ungrouped 1x1 convolution of the blocks. In a network of 3x3 convolutions alone there is
    nothing to change.

    Args:
        network: The network.
        rank: Of all three modes; None: 76 / 576 of the smaller side, as for IPT.
    """
    projections, cores = projection_sites(network), dict[tuple[int, int], FacTCore]()

    def core(inside: int, outside: int) -> FacTCore:
        width = min(inside, outside)
        own = max(2, round(width * 76 / 576)) if rank is None else rank
        return cores.setdefault((inside, outside), FacTCore(inside, outside, own))

    placements = []
    for site in projections:
        dim = _dim(site)
        placements.append(_projection(site, ProjectionFacT(core(dim, dim))))
    attentions = tuple(site.path for site in projections)
    for site in layer_sites(network, (nn.Linear, nn.Conv2d)):
        layer = weight_holder(site.layer)
        if projections and not site.path.startswith(tuple(f"{path}." for path in attentions)):
            continue
        if isinstance(layer, nn.Linear):
            change = FacT(core(layer.in_features, layer.out_features))
        elif isinstance(layer, nn.Conv2d) and _pointwise(layer):
            change = FacT(core(layer.in_channels, layer.out_channels), "nchw")
        else:
            continue
        placements.append(Placement(site.path, site.layer, "fact", change, site.layer, site.layer))
    for (inside, outside), shared in cores.items():
        yield Placement("", network, f"fact_{inside}_{outside}", shared)
    yield from placements


METHODS: dict[str, Callable[..., Iterable[Placement]]] = {
    "adaptir": adaptir,
    "adapter": adapter,
    "adaptformer": adaptformer,
    "conv": conv,
    "fact": fact,
    "lora": lora,
    "moe": moe,
    "ssf": ssf,
    "vpt": vpt,
}
"""Methods by name; the options of each are those of its function."""


def _beside(network: nn.Module, attribute: str, make: Callable[[BlockSite], Adapter]) -> Iterator[Placement]:
    for site in block_sites(network):
        if site.entry is not None:
            yield Placement(site.path, site.host, attribute, make(site), site.entry, site.exit)


def _projection(site: LayerSite, adapter: nn.Module) -> Placement:
    return Placement(site.path, site.layer, IN_PROJECTION, adapter, native=True)


def _rank(rank: int | None, channels: int, share: int) -> int:
    """The rank asked for, or the share of the channels that gives IPT's published counts."""
    return max(4, channels // share) if rank is None else rank


def _dim(site: LayerSite) -> int:
    weight: Any = site.layer.get_parameter("in_proj_weight")
    return int(weight.shape[1])


def _pointwise(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.groups == 1
