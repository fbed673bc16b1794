"""One picture: restore it, or fetch what another program restored, and score it."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from moir.base.errors import InvalidValueError, MissingExtraError, MoirError, TensorShapeError
from moir.evaluation.methods import Method, Predictions
from moir.evaluation.protocols import BEST_PSNR, Protocol, positions
from moir.evaluation.records import ImageScore, Summary
from moir.evaluation.report.intervals import mean_interval
from moir.evaluation.settings import Sample, Setting
from moir.metrics import lpips, psnr

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scored:
    """A score, and the pictures it is of: the restored one is None if it failed."""

    score: ImageScore
    restored: torch.Tensor | None = None


def score(
    method: Method | Predictions,
    setting: Setting,
    sample: Sample,
    protocol: Protocol,
    *,
    perceptual: bool = False,
    prediction: Callable[[], torch.Tensor] | None = None,
) -> Scored:
    """Restore a sample and score it. What goes wrong is said in the score; only a missing extra is raised.

    Args:
        method: What restores.
        setting: Where the sample is from.
        sample: The picture.
        protocol: How to score.
        perceptual: LPIPS too.
        prediction: Gives the picture restored elsewhere; needed with :class:`Predictions` only.

    Raises:
        MissingExtraError: The method, or LPIPS, needs a package that is not installed.
    """
    height, width = sample.target.shape[-2:]
    seconds = None
    try:
        if isinstance(method, Predictions):
            assert prediction is not None
            restored = _fitted(prediction(), sample, protocol)
        else:
            began = time.perf_counter()
            restored = restore(method, sample.input, setting, protocol)
            seconds = time.perf_counter() - began
            _check_size(restored, sample.target)
        metrics = protocol.scores(restored, sample.target, scale=setting.scale, types=setting.types)
        if setting.scale == 1:
            x, y = protocol.compared(sample.input, sample.target, types=setting.types)
            metrics["input_psnr"] = min(float(psnr(x[None], y[None])), BEST_PSNR)
        if perceptual:
            metrics["lpips"] = float(lpips(restored[None].clamp(0, 1), sample.target[None]))
    except MissingExtraError:
        raise
    except MoirError as error:
        return Scored(ImageScore(setting.name, sample.name, width, height, error=str(error)))
    except Exception as error:  # a defect of a method must not cost the user the other pictures
        log.debug("unexpected error", exc_info=True)
        why = f"unexpected {type(error).__name__}: {error}"
        return Scored(ImageScore(setting.name, sample.name, width, height, error=why))
    return Scored(ImageScore(setting.name, sample.name, width, height, metrics, seconds), restored.clamp(0, 1))


def restore(method: Method, x: torch.Tensor, setting: Setting | None, protocol: Protocol) -> torch.Tensor:
    """Restore a picture as the protocol says: whole, or in overlapping crops that are averaged.

    Args:
        method: What restores.
        x: (3, H, W), float32, [0, 1].
        setting: Handed to the method.
        protocol: ``crop`` and ``stride`` count in pixels of ``x``.
    """
    crop, stride = protocol.crop, protocol.stride
    height, width = x.shape[-2:]
    if crop is None or stride is None or max(height, width) <= crop:
        return method.restore(x, setting=setting).detach().float().cpu()
    total = weight = None
    s = 1
    for top in positions(height, crop, stride):
        for left in positions(width, crop, stride):
            part = x[:, top : top + crop, left : left + crop]
            done = method.restore(part, setting=setting).detach().float().cpu()
            if total is None or weight is None:
                s = max(1, done.shape[-1] // part.shape[-1])
                total, weight = torch.zeros(3, height * s, width * s), torch.zeros(height * s, width * s)
            _check_size(done, torch.empty(3, part.shape[-2] * s, part.shape[-1] * s, device="meta"))
            rows = slice(top * s, top * s + done.shape[-2])
            columns = slice(left * s, left * s + done.shape[-1])
            total[:, rows, columns] += done.clamp(0, 1) if bool(torch.isfinite(done).all()) else done
            weight[rows, columns] += 1
    assert total is not None
    assert weight is not None
    return total / weight


def summarise(setting: Setting, scores: Sequence[ImageScore], *, limited: bool = False, seed: int = 0) -> Summary:
    """Means over the pictures that were scored, with 95% confidence intervals.

    Args:
        setting: Where they are from.
        scores: In the order of the setting.
        limited: Whether fewer pictures were asked for than there are.
        seed: Of the bootstrap.
    """
    good = [s for s in scores if s.error is None]
    names = sorted(good[0].metrics) if good else []
    values = {name: [s.metrics[name] for s in good] for name in names}
    return Summary(
        setting.name,
        n=len(good),
        failed=len(scores) - len(good),
        means={name: sum(column) / len(column) for name, column in values.items()},
        intervals={name: mean_interval(column, seed) for name, column in values.items() if len(column) > 1},
        source=setting.source,
        made=setting.made,
        limited=limited,
    )


def _fitted(prediction: torch.Tensor, sample: Sample, protocol: Protocol) -> torch.Tensor:
    """A prediction of the size that is compared, or of the whole picture's, which is cut like the target."""
    if prediction.shape[-2:] != sample.target.shape[-2:] and tuple(prediction.shape[-2:]) == sample.whole:
        return protocol.cut(prediction)
    if prediction.shape[-2:] != sample.target.shape[-2:]:
        (tall, wide), (height, width) = prediction.shape[-2:], sample.target.shape[-2:]
        whole = f" or {sample.whole[1]}x{sample.whole[0]}" if sample.whole != (height, width) else ""
        raise TensorShapeError(f"the prediction is {wide}x{tall} px; expected {width}x{height}{whole}")
    return prediction


def _check_size(restored: torch.Tensor, target: torch.Tensor) -> None:
    if restored.shape != target.shape:
        if restored.dim() != 3 or restored.shape[0] != 3:
            raise InvalidValueError(f"the method gave {tuple(restored.shape)}, not a picture (3, H, W)")
        (tall, wide), (height, width) = restored.shape[-2:], target.shape[-2:]
        raise TensorShapeError(f"the restored picture is {wide}x{tall} px; expected {width}x{height}")
