"""Haze."""

from moir.datasets.entry import DataSet, Folders, Source
from moir.datasets.pairing import HAZE

_RESIDE = Source(
    "RESIDE (Li et al., Benchmarking Single Image Dehazing and Beyond, TIP 2019): OTS and SOTS outdoor",
    "https://sites.google.com/view/reside-dehaze-datasets",
    licence="not stated here; the clean pictures were collected from the web",
    unverified="the count is that of OTS as the papers use it: 2061 clean pictures with 35 hazy ones each; RESIDE-beta "
    "holds more; users report clean pictures of OTS among those of SOTS (FFA-Net issue 12)",
)

SETS = (
    DataSet(
        "ots", "train", _RESIDE, ("dehazing/RESIDE", "dehazing/OTS", "RESIDE/OTS", "OTS", "RESIDE", "OTS_BETA"),
        (
            Folders("part*", "clear"),
            Folders("hazy", "clear"),
            Folders("haze/part*", "clear"),
            Folders("haze/part*", "clear/clear"),
            Folders("haze", "clear"),
        ),
        HAZE, counts=(72135,),
    ),
    DataSet(
        "sots", "test", _RESIDE,
        ("dehazing/SOTS/outdoor", "SOTS/outdoor", "RESIDE/SOTS/outdoor", "test/dehaze", "dehazing/SOTS"),
        (Folders("hazy", "gt"), Folders("hazy", "clear"), Folders("input", "target")), HAZE, counts=(500,),
    ),
)  # fmt: skip
