"""Data sets: every set of the papers in its published layouts, paired readers, and a check of what is there.

The table (:data:`DATASETS`) is data; :func:`find` reads a benchmark or set below a data root, :func:`pairs` any two
folders, and :func:`check` says what is complete, missing, wrong, or leaked from training into testing.
"""

from moir.datasets.benchmarks import BENCHMARKS, GROUPS, Benchmark, Synthesis, benchmarks
from moir.datasets.checking import Report, check
from moir.datasets.entry import DataSet, Layout, Source
from moir.datasets.errors import (
    DamagedPictureError,
    DatasetError,
    DatasetWarning,
    FolderMissingError,
    PairSizeError,
    RootMissingError,
    UnpairedError,
    UnpairedWarning,
    WrongCountWarning,
)
from moir.datasets.leaks import Leak
from moir.datasets.mixtures import MIXTURES, Part, mixture
from moir.datasets.paired_set import Example, Pair, PairedSet, find, pairs
from moir.datasets.survey import Survey
from moir.datasets.table import DATASETS

__all__ = [
    "BENCHMARKS",
    "DATASETS",
    "GROUPS",
    "MIXTURES",
    "Benchmark",
    "DamagedPictureError",
    "DataSet",
    "DatasetError",
    "DatasetWarning",
    "Example",
    "FolderMissingError",
    "Layout",
    "Leak",
    "Pair",
    "PairSizeError",
    "PairedSet",
    "Part",
    "Report",
    "RootMissingError",
    "Source",
    "Survey",
    "Synthesis",
    "UnpairedError",
    "UnpairedWarning",
    "WrongCountWarning",
    "benchmarks",
    "check",
    "find",
    "mixture",
    "pairs",
]
