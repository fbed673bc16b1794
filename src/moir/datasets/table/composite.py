"""CDD11: low light, haze, rain and snow, alone and together, over the same clean pictures."""

from moir.datasets.entry import DataSet, Folders, Source

_CDD11 = Source(
    "CDD-11 (Guo et al., OneRestore, ECCV 2024)",
    "https://github.com/gy65896/OneRestore",
    unverified="that the archive's folder names are those of the MoCE-IR protocol, which are used here",
)
SINGLE = ("low", "haze", "rain", "snow")
DOUBLE = ("low_haze", "low_rain", "low_snow", "haze_rain", "haze_snow")
TRIPLE = ("low_haze_rain", "low_haze_snow")
ALL = (*SINGLE, *DOUBLE, *TRIPLE)


def _sets(part: str, prefix: str, count: int) -> tuple[DataSet, ...]:
    places = tuple(f"{place}/{part}" for place in ("cdd11", "CDD-11", "CDD-11_data"))
    return tuple(
        DataSet(
            prefix + kind, "train" if part == "train" else "test", _CDD11, places, (Folders(kind, "clear"),),
            counts=(count,), family=f"{prefix}*",
        )
        for kind in ALL
    )  # fmt: skip


SETS = (*_sets("train", "cdd11_train_", 1183), *_sets("test", "cdd11_", 200))
