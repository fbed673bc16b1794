"""Rain, made and real."""

from moir.datasets.entry import DataSet, Folders, Source
from moir.datasets.pairing import RAIN, RAIN14000, RAIN_IN_ONE_FOLDER, SAME

_PKU = Source(
    "Rain100, Rain200, RainTrain (Yang et al., Deep Joint Rain Detection and Removal, CVPR 2017)",
    "https://www.icst.pku.edu.cn/struct/Projects/joint_rain_removal.html",
    licence="not stated; the scenes are of BSDS (non-commercial research)",
    unverified="which version a mirror has: the first Rain100H shares 546 scenes with its 1800 training pairs (the "
    "cleaned version has 1254); papers also call the 200-picture test parts Rain100",
)
_DID = Source(
    "Test1200 (Zhang and Patel, DID-MDN, CVPR 2018)",
    "https://github.com/hezhangsprinter/DID-MDN; as input and target folders among the test sets of "
    "https://github.com/swz30/Restormer (Deraining)",
    unverified="that the original holds each pair side by side in one picture (split it into two folders first)",
)
_DDN = Source(
    "Test2800 (the test part of Rain14000; Fu et al., Deep Detail Network, CVPR 2017)",
    "http://smartdsp.xmu.edu.cn/cvpr2017.html; as input and target folders among the test sets of "
    "https://github.com/swz30/Restormer (Deraining)",
    unverified="the mirrors; one of them had a duplicate, 926_10(1).jpg (MPRNet issue 23), reported as unpaired",
)
_LHP = Source(
    "LHP-Rain (Guo et al., From Sky to the Ground, ICCV 2023)",
    "https://yunguo224.github.io/LHP-Rain.github.io/",
    unverified="folder names and the number of test pairs (papers take different frames)",
)

_ONE_OR_TWO = (
    Folders("rainy", "gt"),
    Folders("input", "target"),
    Folders("rain", "norain"),
    Folders("rainy", "."),
    Folders(".", ".", RAIN_IN_ONE_FOLDER),
)


def _places(name: str, *more: str) -> tuple[str, ...]:
    return (f"deraining/{name}", name, f"test/derain/{name}", f"Deraining/Datasets/test/{name}", *more)


def _rain200(letter: str, archive: str) -> tuple[DataSet, DataSet]:
    name, low = f"Rain200{letter}", archive.lower()
    train = (*_split("train"), Folders(f"rain_data_train_{archive}/rain", f"rain_data_train_{archive}/norain"))
    test = (
        *_split("test"),
        Folders(f"rain_data_test_{archive}/rain", f"rain_data_test_{archive}/norain"),
        Folders(f"rain_data_test_{archive}/rain_{low}_test/rain", f"rain_data_test_{archive}/rain_{low}_test/norain"),
        Folders(f"rain_data_test_{archive}/rain/X2", f"rain_data_test_{archive}"),
    )
    places = (f"deraining/{name}", name)
    return (
        DataSet(f"{name.lower()}_train", "train", _PKU, places, train, RAIN, counts=(1800,)),
        DataSet(name.lower(), "test", _PKU, places, test, RAIN, counts=(200,)),
    )


def _split(part: str) -> tuple[Folders, ...]:
    names = (("input", "target"), ("rainy", "gt"), ("rain", "norain"))
    return tuple(Folders(f"{part}/{one}", f"{part}/{other}") for one, other in names)


SETS = (
    DataSet("raintrainl", "train", _PKU, ("deraining/RainTrainL", "RainTrainL"), _ONE_OR_TWO, RAIN, counts=(200,)),
    DataSet(
        "raintrainh", "train", _PKU, ("deraining/RainTrainH", "RainTrainH"), _ONE_OR_TWO, RAIN, counts=(1800, 1254)
    ),
    DataSet("rain100l", "test", _PKU, _places("Rain100L"), _ONE_OR_TWO, RAIN, counts=(100,)),
    DataSet("rain100h", "test", _PKU, _places("Rain100H"), _ONE_OR_TWO, RAIN, counts=(100,)),
    DataSet("rain100h_first25", "test", _PKU, _places("Rain100H_first25"), _ONE_OR_TWO, RAIN, counts=(25,)),
    *_rain200("L", "Light"),
    *_rain200("H", "Heavy"),
    DataSet(
        "test1200", "test", _DID, _places("Test1200"),
        (Folders("input", "target"), Folders("rainy", "gt")), counts=(1200,),
    ),
    DataSet(
        "test2800", "test", _DDN, _places("Test2800", "rainy_image_dataset", "deraining/Rain14000", "Rain14000"),
        (
            Folders("input", "target", SAME),
            Folders("rainy_image", "ground_truth"),
            Folders("testing/rainy_image", "testing/ground_truth"),
            Folders("test/rainy_image", "test/ground_truth"),
        ),
        RAIN14000, counts=(2800,),
    ),
    DataSet(
        "lhp_train", "train", _LHP, ("deraining/LHP-Rain", "LHP-Rain", "LHP", "deraining/LHP"),
        (Folders("train/input", "train/target"), Folders("train/rainy", "train/gt")),
    ),
    DataSet(
        "lhp", "test", _LHP, ("deraining/LHP-Rain", "LHP-Rain", "LHP", "deraining/LHP"),
        (Folders("test/input", "test/target"), Folders("test/rainy", "test/gt"), Folders("input", "target")),
    ),
)  # fmt: skip
