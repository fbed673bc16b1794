"""Many pictures: which files are meant, where the results go, and what happens to each."""

from moir.batch.inputs import Job, Selection, pair_outputs, select_inputs
from moir.batch.restoring import Options, default_manifest, restore_many
from moir.batch.run import run_jobs
from moir.batch.settings import Settings

__all__ = [
    "Job",
    "Options",
    "Selection",
    "Settings",
    "default_manifest",
    "pair_outputs",
    "restore_many",
    "run_jobs",
    "select_inputs",
]
