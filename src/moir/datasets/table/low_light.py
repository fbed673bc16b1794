"""Darkness."""

from moir.datasets.entry import DataSet, Folders, Source
from moir.datasets.pairing import LOW_NORMAL

_LOL1 = Source(
    "LOL (v1; Wei et al., Deep Retinex Decomposition, BMVC 2018)", "https://daooshee.github.io/BMVC2018website/"
)
_LOL2 = Source(
    "LOL v2, the real part (Yang et al., Sparse Gradient Regularized Deep Retinex Network, TIP 2021)",
    "https://github.com/flyywh/CVPR-2020-Semi-Low-Light",
    unverified="how many scenes of its training part are those of the LOL v1 test part",
)
_V1 = ("llie/LOLv1", "LOLv1", "LOL-v1", "LOL", "LOLdataset")
_V2 = ("llie/LOLv2", "LOLv2", "LOL-v2", "llie/LOL-v2", ".")

SETS = (
    DataSet(
        "lolv1_train", "train", _LOL1, _V1,
        (Folders("Train/input", "Train/target"), Folders("our485/low", "our485/high")), counts=(485,),
    ),
    DataSet(
        "lolv1", "test", _LOL1, _V1,
        (Folders("Test/input", "Test/target"), Folders("eval15/low", "eval15/high")), counts=(15,),
    ),
    DataSet(
        "lolv2_real_train", "train", _LOL2, _V2, (Folders("Real_captured/Train/Low", "Real_captured/Train/Normal"),),
        LOW_NORMAL, counts=(689,),
    ),
    DataSet(
        "lolv2_real", "test", _LOL2, _V2, (Folders("Real_captured/Test/Low", "Real_captured/Test/Normal"),),
        LOW_NORMAL, counts=(100,),
    ),
)  # fmt: skip
