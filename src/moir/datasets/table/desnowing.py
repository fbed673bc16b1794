"""Snow, made and real, and the masks it is made with."""

from moir.datasets.entry import DataSet, Folders, Source

_SNOW100K = Source(
    "Snow100K (Liu et al., DesnowNet, TIP 2018)",
    "https://sites.google.com/view/yunfuliu/desnownet",
    unverified="50000 for the training part, and how many masks there are",
)
_REALSNOW = Source(
    "RealSnow (Zhu et al., WGWS-Net, CVPR 2023)",
    "https://github.com/zhuyr97/WGWS-Net",
    unverified="folder names and counts (1650 for training and 240 for testing, from memory of the paper)",
)
_ARCHIVE = "media/jdway/GameSSD/overlapping/test"  # as the authors' archive unpacks


def _test(letter: str) -> DataSet:
    name = f"Snow100K-{letter}"
    places = (
        f"desnowing/Snow100K/test/{name}", f"desnowing/Snow100K/{name}", f"Snow100K/test/{name}", f"Snow100K/{name}",
        name, f"test/{name}", f"{_ARCHIVE}/{name}", f"Snow100K/{_ARCHIVE}/{name}",
        f"Snow100K-testset/{_ARCHIVE}/{name}", f"desnowing/Snow100K/{_ARCHIVE}/{name}",
    )  # fmt: skip
    counts = {"S": 16611, "M": 16588, "L": 16801}
    folders = (Folders("synthetic", "gt"), Folders("input", "target"))
    return DataSet(f"snow100k_{letter.lower()}", "test", _SNOW100K, places, folders, counts=(counts[letter],))


_ALL = ("desnowing/Snow100K/all", "Snow100K/all", "Snow100K-training/all", "desnowing/Snow100K/train", "Snow100K/train")

SETS = (
    DataSet("snow100k_train", "train", _SNOW100K, _ALL, (Folders("synthetic", "gt"),), counts=(50000,)),
    _test("S"),
    _test("M"),
    _test("L"),
    DataSet("snow100k_masks", "masks", _SNOW100K, _ALL, (Folders(None, "mask"),)),
    DataSet(
        "realsnow_train", "train", _REALSNOW, ("desnowing/RealSnow", "RealSnow"),
        (Folders("train/input", "train/gt"), Folders("train/input", "train/target")), counts=(1650,),
    ),
    DataSet(
        "realsnow", "test", _REALSNOW, ("desnowing/RealSnow", "RealSnow"),
        (
            Folders("test/input", "test/gt"),
            Folders("test/input", "test/target"),
            Folders("testing/input", "testing/gt"),
        ),
        counts=(240,),
    ),
)  # fmt: skip
