"""Clean pictures to which noise or JPEG compression is added."""

from moir.datasets.entry import DataSet, Folders, Source

_BSDS = Source(
    "Berkeley Segmentation Data Set (BSDS500, BSD400)",
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html",
    licence="non-commercial research and education only",
    unverified="which 400 pictures BSD400 holds (commonly the train and test parts of BSDS500)",
)
_WED = Source(
    "Waterloo Exploration Database",
    "https://ivc.uwaterloo.ca/database/WaterlooExploration/exploration_database_and_code.rar",
    licence="research use; read the terms at the source",
)
_CBSD68 = Source(
    "CBSD68",
    "https://github.com/clausmichele/CBSD68-dataset (folder CBSD68/original_png)",
    licence="non-commercial research and education only (pictures of BSDS)",
)
_URBAN = Source("Urban100", "https://github.com/jbhuang0604/SelfExSR", unverified="the ColorDN/Urban100HQ layout")
_KODAK = Source("Kodak24", "http://r0k.us/graphics/kodak/", licence="released by Kodak for unrestricted use")
_LIVE = Source(
    "LIVE1 (the reference pictures of the LIVE Image Quality Assessment Database, release 2)",
    "https://live.ece.utexas.edu/research/quality/subjective.htm",
    unverified="the folder databaserelease2/refimgs",
)
_CID = Source(
    "Cloudinary Image Dataset '22, validation part",
    "https://cloudinary.com/labs/cid22",
    licence="CC BY-SA 4.0",
    unverified="the address; the count is that of the 20 pictures this project measures on",
)
_GB82 = Source("gb82", "the project's own folder of test pictures", licence="CC0", unverified="its public address")

SETS = (
    DataSet(
        "bsd400", "train", _BSDS,
        ("denoising/BSD400", "BSD400", "Train/Denoise/BSD400"), counts=(400,),
    ),
    DataSet(
        "bsds500", "train", _BSDS, ("denoising/BSDS500", "BSDS500", "BSR/BSDS500"),
        (Folders(None, "data/images/*"), Folders(None, "images/*"), Folders(None, ".")), counts=(500,),
    ),
    DataSet(
        "wed", "train", _WED,
        ("denoising/WaterlooED", "WaterlooED", "WED", "Train/Denoise/WED", "exploration_database_and_code"),
        (Folders(None, "."), Folders(None, "pristine_images")), counts=(4744,),
    ),
    DataSet(
        "cbsd68", "test", _CBSD68, ("denoising/cBSD68", "CBSD68"),
        (Folders(None, "original_png"), Folders(None, "original"), Folders(None, ".")), counts=(68,),
    ),
    DataSet(
        "urban100", "test", _URBAN,
        ("denoising/Urban100", "Urban100", "ColorDN/Urban100HQ", "ARTSR/Urban100", "benchmark/Urban100"),
        (Folders(None, "."), Folders(None, "HR")), counts=(100,),
    ),
    DataSet("kodak24", "test", _KODAK, ("denoising/Kodak24", "Kodak24", "kodak"), counts=(24,)),
    DataSet(
        "live1", "test", _LIVE, ("live1", "jpeg/LIVE1", "dejpeg/LIVE1", "databaserelease2"),
        (Folders(None, "."), Folders(None, "refimgs")), counts=(29,),
    ),
    DataSet("cid22_validation", "test", _CID, ("cid22_validation",), counts=(20,)),
    DataSet("gb82", "test", _GB82, ("gb82",), counts=(12,)),
)  # fmt: skip
