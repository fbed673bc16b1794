"""High-resolution pictures and their bicubically shrunk versions."""

from moir.datasets.entry import DataSet, Folders, Role, Source
from moir.datasets.pairing import SCALED

_DIV2K = Source(
    "DIV2K (Agustsson and Timofte, NTIRE 2017)",
    "https://data.vision.ee.ethz.ch/cvl/DIV2K/",
    licence="academic research only",
)
_FLICKR = Source(
    "Flickr2K (Lim et al., EDSR, 2017)",
    "https://cv.snu.ac.kr/research/EDSR/Flickr2K.tar",
    licence="research only; rights stay with the photographers",
)
_CLASSIC = Source(
    "Set5, Set14, B100, Urban100 with X2 to X4",
    "https://cv.snu.ac.kr/research/EDSR/benchmark.tar",
    unverified="the ARTSR layout of AdaptIR",
)
_MANGA = Source("Manga109", "http://www.manga109.org/", licence="academic use, on request at the source")
SCALES = (2, 3, 4)


def _with_scales(
    name: str, role: Role, source: Source, places: tuple[str, ...], hr: str, lr: str, count: int, *, clean: bool = True
) -> list[DataSet]:
    whole = DataSet(name, role, source, places, (Folders(None, hr),), counts=(count,))
    shrunk = [
        DataSet(f"{name}_x{s}", role, source, places, (Folders(f"{lr}/X{s}", hr),), SCALED, (count,), s, f"{name}_x*")
        for s in SCALES
    ]
    return [whole, *shrunk] if clean else shrunk


def _classic(folder: str, source: Source, count: int, *, clean: bool = True) -> list[DataSet]:
    places = (f"ARTSR/{folder}", folder, f"benchmark/{folder}")
    return _with_scales(folder.lower(), "test", source, places, "HR", "LR_bicubic", count, clean=clean)


SETS = (
    *_with_scales("div2k_train", "train", _DIV2K, ("DIV2K", "."), "DIV2K_train_HR", "DIV2K_train_LR_bicubic", 800),
    *_with_scales("div2k_valid", "test", _DIV2K, ("DIV2K", "."), "DIV2K_valid_HR", "DIV2K_valid_LR_bicubic", 100),
    *_with_scales("flickr2k", "train", _FLICKR, ("Flickr2K", "."), "Flickr2K_HR", "Flickr2K_LR_bicubic", 2650),
    *_classic("Set5", _CLASSIC, 5),
    *_classic("Set14", _CLASSIC, 14),
    *_classic("B100", _CLASSIC, 100),
    *_classic("Urban100", _CLASSIC, 100, clean=False),  # the clean pictures stand in denoising.py
    *_classic("Manga109", _MANGA, 109),
)
