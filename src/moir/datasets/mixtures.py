"""What the papers train on: sets, how often each is repeated in an epoch, and what is added to clean pictures."""

from typing import NamedTuple

from moir.base.names import check_name
from moir.datasets.benchmarks import Synthesis
from moir.datasets.table import composite


class Part(NamedTuple):
    """One set of a training mixture.

    Attributes:
        dataset: Its name in the table.
        repeat: How often each picture comes in an epoch.
        synthesis: What is added; None where the inputs come with the set as they are.
    """

    dataset: str
    repeat: int
    synthesis: Synthesis | None = None


def _noise(sigmas: tuple[int, ...], repeat: int) -> tuple[Part, ...]:
    return tuple(Part(name, repeat, Synthesis("noise", sigma)) for sigma in sigmas for name in ("bsd400", "wed"))


def _cdd11(kinds: tuple[str, ...]) -> tuple[Part, ...]:
    return tuple(Part(f"cdd11_train_{kind}", 2) for kind in kinds)


_AIO3 = (*_noise((15, 25, 50), 3), Part("raintrainl", 120), Part("ots", 1))
_HIGH = ("div2k_train", "flickr2k")
MIXTURES: dict[str, tuple[Part, ...]] = {
    # MoCE-IR. That aio5 trains on all three noise levels, though it is tested on one, is not stated in the paper.
    "aio3": _AIO3,
    "aio5": (*_AIO3, Part("gopro_train_crops", 5), Part("lolv1_train", 20)),
    "cdd11_single": _cdd11(composite.SINGLE),
    "cdd11_double": _cdd11(composite.DOUBLE),
    "cdd11_triple": _cdd11(composite.TRIPLE),
    "cdd11_all": _cdd11(composite.ALL),
    # AdaptIR, by its tasks. It has no denoise_25 among them; its table of real use does, made alike here.
    **{f"sr_{s}": tuple(Part(f"{name}_x{s}", 1) for name in _HIGH) for s in (2, 3, 4)},
    "lr4_noise30": tuple(Part(f"{name}_x4", 1, Synthesis("noise", 30)) for name in _HIGH),
    "lr4_jpeg30": tuple(Part(f"{name}_x4", 1, Synthesis("jpeg", 30)) for name in _HIGH),
    **{
        f"denoise_{sigma}": tuple(Part(name, 1, Synthesis("noise", sigma)) for name in ("wed", "bsd400", *_HIGH))
        for sigma in (25, 30, 50)
    },
    "derainL": (Part("raintrainl", 24),),
    "derainH": (Part("raintrainh", 4),),
    "low_light": (Part("lolv1_train", 16),),
}


def mixture(name: str) -> tuple[Part, ...]:
    """Return the parts of a training mixture.

    Raises:
        UnknownNameError: No such mixture; the message gives near misses.

    Examples:
        >>> mixture("derainL")
        (Part(dataset='raintrainl', repeat=24, synthesis=None),)
    """
    return MIXTURES[check_name(name, MIXTURES, "training mixture")]
