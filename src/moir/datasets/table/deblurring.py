"""Motion blur."""

from moir.datasets.entry import DataSet, Folders, Source
from moir.datasets.pairing import SCENES

_GOPRO = Source(
    "GoPro (Nah et al., Deep Multi-scale CNN for Dynamic Scene Deblurring, CVPR 2017), GOPRO_Large",
    "https://seungjunnah.github.io/Datasets/gopro",
    licence="CC BY 4.0, as far as we remember; read the page",
    unverified="how many crops the training scripts of Restormer cut (no count is checked)",
)
_PLACES = ("deblurring/GoPro", "GoPro", "GOPRO_Large", "deblurring/GOPRO_Large")


def _folders(part: str) -> tuple[Folders, ...]:
    # blur, not blur_gamma: the papers use the linear version.
    return (
        Folders(f"{part}/input", f"{part}/target"),
        Folders(f"{part}/*/blur", f"{part}/*/sharp", SCENES),
        Folders(f"{part}/blur", f"{part}/sharp"),
    )


SETS = (
    DataSet("gopro_train", "train", _GOPRO, _PLACES, _folders("train"), counts=(2103,)),
    DataSet(
        "gopro_train_crops", "train", _GOPRO, _PLACES,
        (
            Folders("crop/train/input_crops", "crop/train/target_crops"),
            Folders("train/input_crops", "train/target_crops"),
        ),
    ),
    DataSet("gopro", "test", _GOPRO, _PLACES, _folders("test"), counts=(1111,)),
)  # fmt: skip
