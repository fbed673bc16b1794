"""What an expert of the shipped tree can be: numbers of its own in the shared network, an adapter, or a whole network.

Each kind is described by a form, plain values that the card of the weights holds:

- ``{}`` or ``{"decoder_blocks": [2, 9]}``: the shared network with some parameters of its own, and more blocks.
- ``{"own": ["head.*"], ...}``: the same for weights trained elsewhere, with what differs in them.
- ``{"adapter": {"method": "conv", "options": {}}}``: the shared network with an adapter.
- ``{"parts": [[{"expert": 1, "told": ["noise"]}], [{"expert": 3, "told": ["haze"]}, {"grid": ["haze"]}]]}``: other
  experts, one after the other, and the mean of what the parts of one step make; ``grid`` is the tree's bilateral grid.
  With ``"certainty": {"haze": [0.2, 0.6]}`` as far as it is probable. ``{"own": ["haze"]}`` as a part is the shared
  network with parameters of its own, of which the form may say more, as above.
- ``{"model": "restormer", "options": {}}``: another network of the registry.
- ``{"model": "spandrel", "tensors": {"head.weight": ["float32", 48, 3, 3]}}``: another project's network.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from moir.base.errors import InvalidValueError
from moir.base.names import check_name
from moir.checkpoints.blank import blank_weights
from moir.models import create_model
from moir.networks.base import RestorationNetwork
from moir.networks.compact import Compact
from moir.universal.composed_expert import Part, Ramps, Steps, read_ramps, read_steps, words_of
from moir.universal.expert_form import own_names, with_form
from moir.universal.foreign_expert import SPANDREL, SpandrelExpert, spandrel_expert

Form = Mapping[str, Any]
"""Plain values that say of which kind an expert is; see the module's text."""

ADAPTER = "adapter"
"""The name of the attachment in an expert that is an adapter."""


@dataclass(frozen=True)
class ExpertKind(ABC):
    """How an expert is made of the shared network and of what it has of its own.

    Attributes:
        is_told: Whether an expert of one type is told to remove it; otherwise it goes by what was found.
        words: What lists call it.
    """

    is_told: bool = False
    words: str = ""

    @abstractmethod
    def own(self, base: Compact) -> nn.Module:
        """What such an expert has of its own, as it is before weights are loaded.

        Args:
            base: The shared network.

        Returns:
            A module whose state dict has the names that the weights' file has.

        Raises:
            InvalidValueError: Such an expert is not possible.
        """

    @abstractmethod
    def assembled(self, base: Compact, own: nn.Module) -> RestorationNetwork:
        """The expert as a network, in evaluation mode.

        Args:
            base: The shared network; its parameters are shared, not copied.
            own: From :meth:`own`, with its weights; its tensors are shared where the kind allows it.
        """

    def tiling(self, own: nn.Module) -> tuple[int, int]:
        """What it wants tiles' sides and positions to be multiples of, and how far they overlap; pixels.

        Args:
            own: From :meth:`own`.
        """
        return Compact.size_multiple, Compact.overlap


@dataclass(frozen=True)
class OwnParameters(ExpertKind):
    """The shared network with other numbers in some places, and perhaps more blocks.

    Attributes:
        patterns: Names of its own parameters, as in :mod:`fnmatch`, besides those of added blocks.
        options: Of its network; None: those of the shared network.
    """

    is_told: bool = True
    words: str = "own parameters"
    patterns: tuple[str, ...] = ()
    options: Mapping[str, Any] | None = None

    def own(self, base: Compact) -> nn.Module:
        """See :meth:`ExpertKind.own`; to begin with, copies of the shared network's."""
        network = base if self.options is None else Compact(**self.options)
        shared = dict(base.named_parameters())
        names = own_names(base, self.patterns, network)
        return held({n: _copied(shared.get(n, network.get_parameter(n))) for n in names})

    def assembled(self, base: Compact, own: nn.Module) -> RestorationNetwork:
        """See :meth:`ExpertKind.assembled`."""
        network = _sharing(base, self.options)
        _put_all(network, _laid_out_like(base, tensors_of(own)))
        return network.eval()


@dataclass(frozen=True)
class Adapted(ExpertKind):
    """The shared network with an adapter; see :mod:`moir.adapters`.

    Attributes:
        method: Of the adapter.
        options: The method's options.
    """

    method: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def own(self, base: Compact) -> nn.Module:
        """See :meth:`ExpertKind.own`: parameters and running statistics of the adapter."""
        from moir.adapters import adapter_state

        network = self._attached(base)
        tensors = tensors_of(network)
        return held({name: _copied(tensors[name]) for name in adapter_state(network, ADAPTER)})

    def assembled(self, base: Compact, own: nn.Module) -> RestorationNetwork:
        """See :meth:`ExpertKind.assembled`. The shared network itself stays unadapted."""
        network = self._attached(base)
        _put_all(network, _laid_out_like(base, tensors_of(own)))
        return network.eval()

    def _attached(self, base: Compact) -> Compact:
        from moir.adapters import attach

        network = _sharing(base)
        with torch.random.fork_rng(devices=[]):  # numbers that are replaced must not change what others draw
            attach(network, self.method, ADAPTER, freeze=False, **self.options)
        return network.requires_grad_(False)


@dataclass(frozen=True)
class Whole(ExpertKind):
    """Another network of the registry. It shares nothing.

    Attributes:
        model: Its name.
        options: Its options.
    """

    model: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def own(self, base: Compact) -> nn.Module:
        """See :meth:`ExpertKind.own`."""
        network = create_model(self.model, **self.options)
        check_whole(network, self.model)
        return network

    def assembled(self, base: Compact, own: nn.Module) -> RestorationNetwork:
        """See :meth:`ExpertKind.assembled`."""
        assert isinstance(own, RestorationNetwork)
        return own.eval()

    def tiling(self, own: nn.Module) -> tuple[int, int]:
        """See :meth:`ExpertKind.tiling`."""
        assert isinstance(own, RestorationNetwork)
        return own.size_multiple, own.overlap


@dataclass(frozen=True)
class Composed(ExpertKind):
    """Other experts of the tree, and its bilateral grid; see :mod:`moir.universal.composed_expert`.

    Attributes:
        steps: What is done.
        certainty: How far, by how probable the damage is.
        itself: What the expert is as a part of itself; None: it is none.
    """

    steps: Steps = ()
    certainty: Ramps = field(default_factory=dict)
    itself: OwnParameters | None = None

    @property
    def parts(self) -> list[Part]:
        """All experts and grids that it is made of."""
        return Part(steps=self.steps).all()

    def own(self, base: Compact) -> nn.Module:
        """See :meth:`ExpertKind.own`: nothing, if it is no part of itself."""
        return nn.Module() if self.itself is None else self.itself.own(base)

    def assembled(self, base: Compact, own: nn.Module) -> RestorationNetwork:
        """It is made of other experts, so the tree makes it."""
        raise InvalidValueError(f"{self.words}: made of other experts of its tree; ask the tree for it")


@dataclass(frozen=True)
class Foreign(ExpertKind):
    """A network of another project that spandrel knows by its tensors.

    Attributes:
        shapes: Names of its tensors to type and shape.
    """

    words: str = SPANDREL
    shapes: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def own(self, base: Compact) -> nn.Module:
        """See :meth:`ExpertKind.own`."""
        tensors: dict[str, torch.Tensor] = {}
        for name, (kind, *shape) in self.shapes.items():
            dtype = getattr(torch, str(kind), None)
            if not isinstance(dtype, torch.dtype):
                raise InvalidValueError(
                    f"{name} of another project's expert has the type {kind!r}, which no tensor has"
                )
            tensors[name] = torch.zeros([int(side) for side in shape], dtype=dtype)
        return held(tensors)

    def assembled(self, base: Compact, own: nn.Module) -> RestorationNetwork:
        """See :meth:`ExpertKind.assembled`."""
        tensors = {name: tensor.detach().cpu() for name, tensor in tensors_of(own).items()}
        network = spandrel_expert(tensors, "an expert of the tree")
        return network.to(base.stem.weight.device).eval().requires_grad_(False)

    def tiling(self, own: nn.Module) -> tuple[int, int]:
        """See :meth:`ExpertKind.tiling`."""
        return SpandrelExpert.size_multiple, SpandrelExpert.overlap


def kind_of(form: Form, base_options: Mapping[str, Any], patterns: Sequence[str]) -> ExpertKind:
    """Read a form.

    Args:
        form: See the module's text.
        base_options: Options of the shared network.
        patterns: What experts have of their own where their form does not say.

    Raises:
        InvalidValueError: It is none.
        UnknownNameError: No such method of adapters.
    """
    if not isinstance(form, Mapping):
        raise InvalidValueError(f"{form!r} is not the form of an expert: a mapping is needed")
    if "adapter" in form:
        from moir.adapters import METHODS

        adapter = _fields(_fields(form, "adapter")["adapter"], "method", "options")
        method = check_name(str(adapter["method"]), METHODS, "adapter")
        return Adapted(words=f"adapter {method}", method=method, options=adapter.get("options") or {})
    if "parts" in form:
        steps, ramps = read_steps(form["parts"]), read_ramps(form.get("certainty"))
        rest = {name: value for name, value in form.items() if name not in ("parts", "certainty")}
        itself = None
        if any(part.is_own for part in Part(steps=steps).all()):
            itself = _own_parameters(rest, base_options, patterns)
        else:
            _fields(form, "parts", "certainty")
        return Composed(words=f"experts {words_of(steps)}", steps=steps, certainty=ramps, itself=itself)
    if form.get("model") == SPANDREL:
        return Foreign(shapes=_fields(form, "model", "tensors")["tensors"])
    if "model" in form:
        name = str(_fields(form, "model", "options")["model"])
        return Whole(words=name, model=name, options=form.get("options") or {})
    return _own_parameters(form, base_options, patterns)


def combined(steps: Any) -> Composed:
    """Steps that other experts take, as the kind of one more.

    Args:
        steps: The ``parts`` of a form.

    Raises:
        InvalidValueError: They are none, or it is a part of itself.
    """
    kind = Composed(words=f"experts {words_of(read_steps(steps))}", steps=read_steps(steps))
    if any(part.is_own for part in kind.parts):
        raise InvalidValueError("steps: what takes them has no parameters of its own, so it is no part of itself")
    return kind


def _own_parameters(form: Form, base_options: Mapping[str, Any], patterns: Sequence[str]) -> OwnParameters:
    blocks = {name: value for name, value in form.items() if name != "own"}
    options = with_form(base_options, blocks) if blocks else None
    return OwnParameters(is_told="own" not in form, patterns=tuple(form.get("own", patterns)), options=options)


def check_whole(network: nn.Module, name: str) -> None:
    """Check that tiles of a picture can be given to a network one by one.

    Args:
        network: The network.
        name: What messages call it.

    Raises:
        InvalidValueError: It decides something on whole pictures, or enlarges them.
    """
    if not isinstance(network, RestorationNetwork):
        return
    if type(network).analyse is not RestorationNetwork.analyse:
        raise InvalidValueError(
            f"{name} decides on the whole picture what all its tiles must share (it has an analyse of its own), and in "
            "this tree experts see tiles alone; take a network that decides nothing, an adapter for the shared network "
            "(moir adapt), or a tree in the published layout, whose experts may decide (docs/unirestorer.md)"
        )
    if network.scale != 1:
        raise InvalidValueError(f"{name} enlarges pictures {network.scale} times; an expert keeps their size")


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """All parameters and buffers that a state dict holds, by dotted name, as the tensors themselves."""
    return module.state_dict(keep_vars=True)


def held(tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    """A module that does nothing but hold these tensors, under their dotted names; what is trained, as parameters."""
    holder = nn.Module()
    _put_all(holder, tensors)
    return holder


def copied(own: nn.Module) -> nn.Module:
    """A copy of what an expert has of its own, which takes half the time of a deep copy where it only holds tensors."""
    if type(own) is not nn.Module:
        return deepcopy(own)
    return held({name: _copied(tensor) for name, tensor in tensors_of(own).items()})


def _put_all(network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Set parameters and buffers by their dotted names; modules on the way are made where they are missing."""
    for name, tensor in tensors.items():
        module = network
        *path, last = name.split(".")
        for part in path:
            if part not in module._modules:
                module._modules[part] = nn.Module()
            module = module.get_submodule(part)
        if isinstance(tensor, nn.Parameter):
            module._parameters[last] = tensor
        else:
            module._buffers[last] = tensor


def _sharing(base: Compact, options: Mapping[str, Any] | None = None) -> Compact:
    """A network with the parameters of the shared one, the same tensors, wherever both have them.

    Args:
        base: The shared network.
        options: Of the network; None: those of ``base``.
    """
    shared = dict(base.named_parameters())
    if options is None:  # its modules are copied, and its tensors stay what they are
        return deepcopy(base, {id(parameter): parameter for parameter in shared.values()})
    with blank_weights():
        network = Compact(**options).requires_grad_(False)
    names = {name for name, _ in network.named_parameters()}
    _put_all(network, {name: parameter for name, parameter in shared.items() if name in names})
    return network


def _laid_out_like(base: Compact, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tensors, in the layout of the shared network, which the runtime prepares."""
    if base.stem.weight.is_contiguous(memory_format=torch.channels_last):
        for tensor in tensors.values():
            if tensor.dim() == 4:
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return tensors


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    copy = tensor.detach().clone()
    return nn.Parameter(copy, requires_grad=False) if isinstance(tensor, nn.Parameter) else copy


def _fields(form: Any, *known: str) -> Mapping[str, Any]:
    """The form, if it is a mapping that has the first of these keys and no others.

    Raises:
        InvalidValueError: It is not.
    """
    if not isinstance(form, Mapping) or known[0] not in form or set(form) - set(known):
        raise InvalidValueError(f"{form!r} is not the form of an expert: a mapping with {', '.join(known)} is needed")
    return form
