"""Every set of the papers, as data: one file per kind of damage, each a tuple of `DataSet`.

Nothing here was downloaded while it was written: folder names come from the papers' repositories, pages and users'
scripts. What could not be verified is said in each source's ``unverified`` and in ``docs/datasets.md``.
"""

from moir.datasets.entry import DataSet
from moir.datasets.table import composite, deblurring, dehazing, denoising, deraining, desnowing, low_light, scaling

CHAPTERS: dict[str, tuple[DataSet, ...]] = {
    "Clean pictures, for noise and JPEG": denoising.SETS,
    "Rain": deraining.SETS,
    "Haze": dehazing.SETS,
    "Snow": desnowing.SETS,
    "Blur": deblurring.SETS,
    "Low light": low_light.SETS,
    "Several at once": composite.SETS,
    "Low resolution": scaling.SETS,
}
DATASETS: dict[str, DataSet] = {entry.name: entry for sets in CHAPTERS.values() for entry in sets}

__all__ = ["CHAPTERS", "DATASETS"]
