"""Many pictures: which files are meant, where the results go, and what happens to each."""

from moir.batch.inputs import Job, Selection, pair_outputs, select_inputs
from moir.batch.run import run_jobs

__all__ = ["Job", "Selection", "pair_outputs", "run_jobs", "select_inputs"]
