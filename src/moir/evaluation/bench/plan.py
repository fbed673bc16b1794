"""What shall be measured: models, sizes, precisions and engines, checked before any work."""

from collections.abc import Sequence
from dataclasses import dataclass

from moir.base.errors import InvalidValueError, MissingExtraError
from moir.base.names import check_name
from moir.evaluation.bench.engines import ENGINES, YARDSTICK, EngineKind
from moir.evaluation.bench.models import check_model
from moir.models import DEFAULT
from moir.runtime.device import PRECISIONS, choose_device, choose_precision, has_fast_bf16

MODELS = (DEFAULT, "moce_ir_s")
SIZES = (256,)


@dataclass(frozen=True)
class Case:
    """One row to be: a model on square pictures of ``size`` pixels a side, on a device, in a precision, by an engine.

    Attributes:
        required: Whether the user named the engine; one that turns out not to serve the model is then an error.
    """

    model: str
    size: int
    device: str
    precision: str
    engine: str
    required: bool = False


def plan(
    models: Sequence[str] | None = None,
    sizes: Sequence[int] | None = None,
    precisions: Sequence[str] | None = None,
    engines: Sequence[str] | None = None,
    device: str | None = None,
) -> list[Case]:
    """All combinations that are possible, model by model, the yardstick of each model and size first.

    Args:
        models: Shipped or registry names, weights files, ``hf://owner/repo``; None: :data:`MODELS`.
        sizes: Sides of square pictures, pixels; None: :data:`SIZES`.
        precisions: None: float32, and what else is fast on the device.
        engines: Names of :data:`~moir.evaluation.bench.engines.ENGINES`; None: those that are installed and ready in
            seconds.
        device: See :func:`moir.runtime.choose_device`.

    Raises:
        UnknownNameError: An unknown model, precision or engine.
        InvalidValueError: A size below 1, or an engine that was named but cannot run so.
        MissingExtraError: An engine that was named is not installed.
        DeviceError: The device, or a precision on it, is not to be had.
    """
    where = choose_device(device)
    names = [check_model(name) for name in (MODELS if models is None else models)]
    sides = list(SIZES if sizes is None else sizes)
    for side in sides:
        if side < 1:
            raise InvalidValueError(f"size {side} is not possible: give the side of the pictures in pixels, from 1 on")
    if precisions is None:
        wanted = ["float32"]
        if has_fast_bf16(where):
            wanted.append("bf16")
        if where.type == "cuda":
            wanted.append("fp16")
    else:
        wanted = [check_name(name, PRECISIONS, "precision") for name in precisions]
        for name in wanted:
            choose_precision(name, where)
    kinds = _kinds(engines, wanted if precisions is not None else None, where.type)
    cases = []
    for model in dict.fromkeys(names):
        for side in dict.fromkeys(sides):
            cases.append(Case(model, side, str(where), "float32", YARDSTICK, True))
            cases += [
                Case(model, side, str(where), precision, engine, engines is not None)
                for precision in dict.fromkeys(wanted)
                for engine, kind in kinds.items()
                if precision in kind.precisions
            ]
    return cases


def _kinds(engines: Sequence[str] | None, precisions: list[str] | None, device: str) -> dict[str, EngineKind]:
    """The engines to compare; where the user named them, each must be possible as asked."""
    if engines is None:
        return {
            name: kind
            for name, kind in ENGINES.items()
            if device in kind.devices and not kind.missing and not kind.by_name_only
        }
    kinds = {check_name(name, ENGINES, "engine"): ENGINES[name] for name in engines if name != YARDSTICK}
    for name, kind in kinds.items():
        if device not in kind.devices:
            raise InvalidValueError(f"the engine {name!r} runs on {', '.join(kind.devices)}, not on {device!r}")
        if kind.missing:
            raise MissingExtraError(
                f"the engine {name!r} needs {', '.join(kind.missing)}, which is not installed; "
                "pip install 'moir[export]', or leave the engine out"
            )
        if precisions is not None and not set(precisions) & set(kind.precisions):
            raise InvalidValueError(
                f"the engine {name!r} computes in {', '.join(kind.precisions)}, not in {', '.join(precisions)}"
            )
    return kinds
