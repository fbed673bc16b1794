"""Attaching adapters to a network: one call for any method and any network, and the way back.

A network may carry several attachments, each under a name of its own. Adapters sit inside the network they belong to:
the state dict has ``<block>.<method>.<parameter>``, which for AdaptIR on IPT and EDT are the published names. Where two
attachments meet at one place, the name of each comes between: ``<block>.<method>.<name>.<parameter>``.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any, cast

import torch
from torch import nn

from moir.adapters.base import Mergeable, ProjectionAdapter, Several, SeveralProjections, Switchable
from moir.adapters.low_rank import FacTCore
from moir.adapters.methods import METHODS, Placement
from moir.adapters.sites import IN_PROJECTION, weight_holder
from moir.base.errors import CheckpointError, InvalidValueError
from moir.base.names import check_name
from moir.layers.lora_conv import LoRAConv2d


@dataclass
class Attachment:
    """What was attached under one name.

    Attributes:
        method: Name of the method.
        options: Its options, as given.
        placements: Every adapter and its place.
        active: Whether it acts.
    """

    method: str
    options: dict[str, Any]
    placements: list[Placement]
    active: bool = True


@dataclass
class _Attachments:
    """All attachments of a network, and which of its parameters were trainable before they were frozen."""

    by_name: dict[str, Attachment] = field(default_factory=dict)
    trainable: list[nn.Parameter] = field(default_factory=list)


def attach(network: nn.Module, method: str, name: str | None = None, freeze: bool = True, **options: Any) -> nn.Module:
    """Attach adapters to a network, in place. It then gives what it gave before, until they are trained.

    Args:
        network: Any network of the registry.
        method: ``adaptir``, ``adapter``, ``adaptformer``, ``conv``, ``fact``, ``lora``, ``moe``, ``ssf`` or ``vpt``.
        name: Of the attachment; None: the method's.
        freeze: Freeze everything else, other attachments included.
        **options: Of the method; see :mod:`moir.adapters.methods`.

    Returns:
        The network.

    Raises:
        InvalidValueError: The name is taken or cannot be part of a tensor's name, an option has an impossible value,
            or the network has no place for the method.
        UnknownNameError: Another method or option.
    """
    make = METHODS[check_name(method, METHODS, "adapter")]
    known = [option for option in inspect.signature(make).parameters if option != "network"]
    for option in options:
        check_name(option, known, f"option of the adapter {method}")
    name, own = method if name is None else name, _own(network)
    if name in own.by_name:
        raise InvalidValueError(f"an adapter named {name!r} is attached already; give another name, or detach it first")
    if not name.replace("-", "_").isidentifier():
        raise InvalidValueError(f"an adapter cannot be named {name!r}; use letters, digits, '_' and '-'")
    placements = list(make(network, **options))
    if not placements:
        raise InvalidValueError(f"{type(network).__name__} has no place for {method}; use another method")
    for placement in placements:
        _check_place(placement)
    if freeze:
        of_adapters = {id(p) for label in own.by_name for p in adapter_parameters(network, label)}
        own.trainable += [p for p in network.parameters() if p.requires_grad and id(p) not in of_adapters]
        network.requires_grad_(False)
    like = next(network.parameters())
    for placement in placements:
        placement.adapter.to(like.device, like.dtype).train(network.training)
        _place(placement, name)
    own.by_name[name] = Attachment(method, dict(options), placements)
    return network


def detach(network: nn.Module, name: str) -> nn.Module:
    """Take adapters out again; with the last ones, what was frozen for them becomes trainable.

    Raises:
        UnknownNameError: Nothing of that name is attached.
    """
    own = _own(network)
    for placement in _attachment(network, name).placements:
        _remove(placement, name)
    del own.by_name[name]
    if not own.by_name:
        for parameter in own.trainable:
            parameter.requires_grad_(True)
        own.trainable = []
    return network


def attached(network: nn.Module) -> dict[str, Attachment]:
    """What is attached to a network, by name."""
    return dict(_own(network).by_name)


def set_active(network: nn.Module, *names: str) -> None:
    """Switch these attachments on and all others off; without names, the network is its frozen self.

    Raises:
        UnknownNameError: Nothing of that name is attached.
    """
    for name in names:
        _attachment(network, name)
    for name, attachment in _own(network).by_name.items():
        attachment.active = name in names
        for placement in attachment.placements:
            if isinstance(placement.adapter, Switchable):
                placement.adapter.enabled = attachment.active


def adapt_each(
    network: nn.Module,
    x: torch.Tensor,
    names: Sequence[str | None],
    context: Mapping[str, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Run every picture of a batch with an adapter of its own, on one resident network.

    Pictures with the same adapter go through the network together. What was switched on before is so again afterwards.
    The network must not run in another thread meanwhile.

    Args:
        network: A network with attachments.
        x: (B, 3, H, W), float32, [0, 1].
        names: B names of attachments; None: the frozen network.
        context: See :meth:`moir.networks.base.RestorationNetwork.forward`; None: analyse ``x``.

    Returns:
        (B, 3, H, W).

    Raises:
        InvalidValueError: Not one name per picture.
        UnknownNameError: Nothing of that name is attached.
    """
    if len(names) != len(x):
        raise InvalidValueError(f"{len(names)} names of adapters for {len(x)} pictures; give one per picture")
    before = [name for name, attachment in _own(network).by_name.items() if attachment.active]
    parts, order = [], []
    try:
        for name in dict.fromkeys(names):
            rows = [row for row, wanted in enumerate(names) if wanted == name]
            own = None if context is None else {key: value[rows] for key, value in context.items()}
            set_active(network, *(() if name is None else (name,)))
            parts.append(network(x[rows], own))
            order += rows
    finally:
        set_active(network, *before)
    return torch.cat(parts)[torch.tensor(order, device=x.device).argsort()]


def adapter_parameters(network: nn.Module, name: str) -> list[nn.Parameter]:
    """The parameters of one attachment.

    Raises:
        UnknownNameError: Nothing of that name is attached.
    """
    return [p for placement in _attachment(network, name).placements for p in placement.adapter.parameters()]


def parameter_count(network: nn.Module, name: str) -> int:
    """The number of trained numbers of one attachment; running statistics do not count.

    Raises:
        UnknownNameError: Nothing of that name is attached.
    """
    return sum(parameter.numel() for parameter in adapter_parameters(network, name))


def adapter_state(network: nn.Module, name: str) -> dict[str, torch.Tensor]:
    """Everything an attachment is, parameters and running statistics, under ``<block>.<method>.<parameter>``.

    Raises:
        UnknownNameError: Nothing of that name is attached.
    """
    state = {}
    for placement in _attachment(network, name).placements:
        for key, value in placement.adapter.state_dict().items():
            state[f"{_prefix(placement)}.{key}"] = value
    return state


def load_adapter_state(network: nn.Module, state: Mapping[str, torch.Tensor], name: str) -> None:
    """Load what :func:`adapter_state` gave, strictly.

    Raises:
        CheckpointError: The state is of another network, method or size; the message says what differs.
        UnknownNameError: Nothing of that name is attached.
    """
    own = adapter_state(network, name)
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key} {tuple(state[key].shape)}, here {tuple(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    found = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    problems = [f"{len(keys)} {what}, such as {keys[0]}" for what, keys in found if keys]
    if problems:
        method = _attachment(network, name).method
        raise CheckpointError(
            f"the adapter is of another network or size than {method} on this {type(network).__name__}: "
            f"{'; '.join(problems)}; load the network that it was trained on"
        )
    with torch.no_grad():
        for key, value in own.items():  # a state dict's tensors are the network's own
            value.copy_(state[key])


def merge(network: nn.Module, name: str) -> nn.Module:
    """Write an attachment into the network's weights, in place: the same output, without the cost of adapters.

    LoRA, FacT and SSF are changes of weights and can be merged. SSF gives layers without a bias one.

    Raises:
        InvalidValueError: The method is no change of weights, or a place cannot hold the change.
        UnknownNameError: Nothing of that name is attached.
    """
    attachment = _attachment(network, name)
    merged = []
    for placement in attachment.placements:
        if not isinstance(placement.adapter, Switchable):
            continue  # what adapters share
        if not isinstance(placement.adapter, Mergeable):
            raise InvalidValueError(
                f"{attachment.method} is no change of weights and cannot be merged; keep it attached"
            )
        if isinstance(placement.host._modules[placement.attribute], Several | SeveralProjections):
            raise InvalidValueError(f"two adapters meet at {_prefix(placement)}; detach the other one before merging")
        merged.append((placement, *_merged(placement, placement.adapter)))
    for placement, weight, bias in merged:  # all can be merged: now do it
        _write(placement, weight, bias)
    return detach(network, name)


class _Hook:
    """Calls the adapters of one place when the frozen network passes it."""

    def __init__(self, host: nn.Module, attribute: str) -> None:
        self.host, self.attribute = host, attribute
        self.inputs: dict[int, torch.Tensor] = {}  # per thread

    def enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.inputs[get_ident()] = args[0]

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        x = self.inputs.pop(get_ident())
        here = self.host._modules[self.attribute]
        for adapter in here.values() if isinstance(here, Several) else (here,):
            if adapter.enabled:  # type: ignore[union-attr]
                output = adapter.adapt(x, output)  # type: ignore[union-attr, operator]
        return output


def _own(network: nn.Module) -> _Attachments:
    found = network.__dict__.get("_attachments")
    if found is None:
        found = network.__dict__["_attachments"] = _Attachments()
    return cast(_Attachments, found)


def _attachment(network: nn.Module, name: str) -> Attachment:
    by_name = _own(network).by_name
    if not by_name:
        raise InvalidValueError(f"no adapter is attached, so there is none named {name!r}; call attach() first")
    return by_name[check_name(name, by_name, "attached adapter")]


def _prefix(placement: Placement) -> str:
    return f"{placement.path}.{placement.attribute}" if placement.path else placement.attribute


def _check_place(placement: Placement) -> None:
    there = getattr(placement.host, placement.attribute, None)
    if there is not None and not isinstance(there, Switchable | Several | SeveralProjections | FacTCore):
        raise InvalidValueError(
            f"{_prefix(placement)} is something else already, so no adapter can be put there; use another method"
        )


def _place(placement: Placement, name: str) -> None:
    host, attribute, adapter = placement.host, placement.attribute, placement.adapter
    adapter.label = name  # type: ignore[assignment]
    there = host._modules.get(attribute)
    if there is None:
        setattr(host, attribute, adapter)
        if placement.entry is not None and placement.exit is not None:
            hook = _Hook(host, attribute)
            placement.entry.register_forward_pre_hook(hook.enter)
            placement.exit.register_forward_hook(hook.leave)
    elif isinstance(there, Several | SeveralProjections):
        there[name] = adapter
    else:
        together = SeveralProjections if isinstance(adapter, ProjectionAdapter) else Several
        setattr(host, attribute, together({str(there.label): there, name: adapter}))


def _remove(placement: Placement, name: str) -> None:
    host, attribute = placement.host, placement.attribute
    there = host._modules[attribute]
    if isinstance(there, Several | SeveralProjections):
        del there[name]
        if len(there) == 1:
            setattr(host, attribute, next(iter(there.values())))
        return
    if placement.native:
        setattr(host, attribute, None)  # the place stays, empty
        return
    delattr(host, attribute)
    if placement.entry is not None and placement.exit is not None:
        for hooks in (placement.entry._forward_pre_hooks, placement.exit._forward_hooks):
            for number, hook in list(hooks.items()):
                of = getattr(hook, "__self__", None)
                if isinstance(of, _Hook) and of.host is host and of.attribute == attribute:
                    del hooks[number]


def _holder(placement: Placement) -> tuple[nn.Module, str, str]:
    """The module that holds the weight at a place, and the names of weight and bias."""
    if placement.attribute == IN_PROJECTION:
        return placement.host, "in_proj_weight", "in_proj_bias"
    return weight_holder(placement.host), "weight", "bias"


@torch.no_grad()
def _merged(placement: Placement, adapter: Mergeable) -> tuple[torch.Tensor, torch.Tensor | None]:
    layer, weight, bias = _holder(placement)
    host = placement.host
    now = host.effective_weight() if isinstance(host, LoRAConv2d) else layer.get_parameter(weight)
    new = adapter.effective(now, layer._parameters.get(bias))
    if new[1] is not None and bias not in layer._parameters:
        raise InvalidValueError(f"{placement.path} has no bias to merge a shift into; keep the adapter attached")
    return new


@torch.no_grad()
def _write(placement: Placement, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    layer, weight_name, bias_name = _holder(placement)
    layer.get_parameter(weight_name).copy_(weight)
    if isinstance(placement.host, LoRAConv2d):
        placement.host.lora_B.zero_()  # its own change is in the weight now
    if bias is not None:
        setattr(layer, bias_name, nn.Parameter(bias.clone(), requires_grad=False))
