"""What every degradation offers: sample parameters once, then apply them."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar, get_args, get_origin

import torch

from moir.base.errors import InvalidValueError, TensorShapeError
from moir.base.names import check_name
from moir.degrade.severity import check_value


@dataclass(frozen=True)
class Params:
    """Parameters of one degradation on one picture; saved as JSON, they make the same damage again.

    Attributes:
        kind: Which form of the degradation, e.g. ``gaussian`` or ``poisson`` noise.
        seed: Seed of everything random that is drawn while applying (the noise field, the places of the flakes).

    Raises:
        UnknownNameError: ``kind`` is not one of ``kinds``.
    """

    type: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]
    severity_field: ClassVar[str]

    kind: str
    seed: int

    def __post_init__(self) -> None:
        check_name(self.kind, self.kinds, f"kind of {self.type}")

    @property
    def severity(self) -> float:
        """The value of the field that measures severity; see :mod:`moir.degrade.severity`."""
        value: float = getattr(self, self.severity_field)
        return value

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary with ``type`` and every parameter, as a JSON file gives it back (tuples are lists)."""
        fields = dataclasses.asdict(self)
        return {"type": self.type, **{k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}}


class Degradation(Protocol):
    """One degradation type: a module-like object with two functions.

    ``sample`` draws the parameters from a generator; ``apply`` is a pure function of pictures and parameters.
    """

    type: str
    kinds: tuple[str, ...]

    def sample(self, level: str | float, generator: torch.Generator, kind: str | None = None) -> Params:
        """Draw parameters.

        Args:
            level: A degree, ``inside``, ``outside`` or the severity itself; see :func:`moir.degrade.severity.draw`.
            generator: Source of randomness.
            kind: One of ``kinds``; None: drawn with the degradation's own weights.
        """
        ...

    def apply(self, images: torch.Tensor, params: Sequence[Params]) -> torch.Tensor:
        """Damage a batch, each picture with its own parameters.

        Args:
            images: (B, 3, H, W), float32, [0, 1].
            params: B parameter records.

        Returns:
            (B, 3, H, W), float32, [0, 1].
        """
        ...


_PARAMS: dict[str, type[Params]] = {}


def register_params(cls: type[Params]) -> type[Params]:
    """Class decorator: makes the parameters known to :func:`params_from_json`."""
    _PARAMS[cls.type] = cls
    return cls


def params_from_json(record: dict[str, Any]) -> Params:
    """The inverse of :meth:`Params.to_json`.

    Raises:
        UnknownNameError: An unknown type, kind or field.
        InvalidValueError: A field is missing, has a value of the wrong type, or the severity is out of range.
    """
    fields = dict(record)
    cls = _PARAMS[check_name(str(fields.pop("type", None)), _PARAMS, "degradation type")]
    known = {field.name: field for field in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    for name, value in fields.items():
        check_name(name, known, f"parameter of {cls.type}")
        # JSON has no tuples, and writes 3.0 as 3 in some hands.
        values[name] = tuple(value) if isinstance(value, list) else value
        if not _fits(values[name], known[name].type):
            raise InvalidValueError(f"{name} of {cls.type} is {value!r}; expected {known[name].type}")
    try:
        params = cls(**values)
    except TypeError as error:
        raise InvalidValueError(f"incomplete parameters of {cls.type}: {error}") from error
    check_value(cls.type, params.severity)
    return params


def _fits(value: Any, type_: Any) -> bool:
    if type_ is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if get_origin(type_) is tuple:
        wanted = get_args(type_)
        return isinstance(value, tuple) and len(value) == len(wanted) and all(map(_fits, value, wanted))
    return isinstance(value, type_) and not isinstance(value, bool)


P = TypeVar("P", bound=Params)


def check_batch(images: torch.Tensor, params: Sequence[Params], cls: type[P]) -> list[P]:
    """Check the contract of ``apply`` and return the records.

    Raises:
        TensorShapeError: Not (B, 3, H, W) float32, or not B parameter records.
        InvalidValueError: A record of another degradation.
    """
    check_pictures(images, len(params))
    records = [p for p in params if isinstance(p, cls)]
    if len(records) < len(params):
        raise InvalidValueError(f"expected parameters of {cls.type}, got those of {', '.join(p.type for p in params)}")
    return records


def check_pictures(images: torch.Tensor, records: int) -> None:
    """Check that there are as many pictures of the right kind as there are records.

    Raises:
        TensorShapeError: Not (B, 3, H, W) float32, or not B records.
    """
    if images.dim() != 4 or images.shape[1] != 3 or images.dtype != torch.float32:
        raise TensorShapeError(f"expected float32 (B, 3, H, W) in [0, 1], got {images.dtype} {tuple(images.shape)}")
    if records != images.shape[0]:
        raise TensorShapeError(f"got {images.shape[0]} pictures but {records} parameter records; give one for each")


def check_map(values: torch.Tensor, images: torch.Tensor, what: str) -> torch.Tensor:
    """Return a map that goes with a batch of pictures (depth, illumination), in the type and on the device of these.

    Raises:
        TensorShapeError: Not (B, H, W), or a value is negative or not finite.
    """
    expected = (images.shape[0], *images.shape[-2:])
    if tuple(values.shape) != expected:
        raise TensorShapeError(
            f"expected {what} of shape (B, H, W) = {expected}, got {tuple(values.shape)}; resize it to the picture"
        )
    if not bool((values.isfinite() & (values >= 0)).all()):
        raise TensorShapeError(f"the {what} map has values that are negative or not finite; give numbers from 0 up")
    return values.to(images)


# -- drawing --


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """One number from [low, high)."""
    return low + (high - low) * torch.rand((), generator=generator).item()


def choose(generator: torch.Generator, weights: dict[str, float]) -> str:
    """One key, with probability proportional to its weight."""
    names = list(weights)
    index = torch.multinomial(torch.tensor(list(weights.values()), dtype=torch.float64), 1, generator=generator)
    return names[int(index.item())]


def pick_kind(kind: str | None, weights: dict[str, float], type_: str, generator: torch.Generator) -> str:
    """``kind`` if it is known, or one drawn by weight if it is None."""
    return choose(generator, weights) if kind is None else check_name(kind, weights, f"kind of {type_}")


def new_seed(generator: torch.Generator) -> int:
    """A seed for the random fields of one picture."""
    return int(torch.randint(0, 2**31 - 1, (), generator=generator).item())
