from pathlib import Path

import pytest

from moir.base.errors import MoirError, OutputConflictError, OutputExistsError, PictureNotFoundError
from moir.batch import Job, Selection, pair_outputs, run_jobs, select_inputs


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.JPG", "x.gif", "notes.txt", "sub/c.webp", "sub/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def names(selection):
    return [str(relative) for _, relative in selection.files]


def test_folders_globs_and_files(folder):
    flat = select_inputs([str(folder)])
    assert names(flat) == ["a.png", "b.JPG", "x.gif"]
    assert [path.name for path in flat.skipped] == ["notes.txt"]
    assert names(select_inputs([str(folder)], recursive=True)) == ["a.png", "b.JPG", "sub/a.png", "sub/c.webp", "x.gif"]
    assert names(select_inputs([str(folder / "*.png")])) == ["a.png"]
    assert names(select_inputs([str(folder / "**" / "*.png")])) == ["a.png", "a.png"]
    assert names(select_inputs([str(folder / "notes.txt")])) == ["notes.txt"]
    assert names(select_inputs([str(folder / "a.png"), str(folder)])) == ["a.png", "b.JPG", "x.gif"]
    with pytest.raises(PictureNotFoundError, match="no file matches"):
        select_inputs([str(folder / "*.bmp")])
    (folder / "empty").mkdir()
    with pytest.raises(PictureNotFoundError, match="--recursive"):
        select_inputs([str(folder / "empty")])


def test_names_with_brackets_are_files_first(tmp_path):
    (tmp_path / "a[1].png").write_bytes(b"x")
    assert names(select_inputs([str(tmp_path / "a[1].png")])) == ["a[1].png"]


def test_output_names(folder):
    selection = select_inputs([str(folder)], recursive=True)
    beside = {job.input.name: job.output.name for job in pair_outputs(selection, None)}
    assert beside["b.JPG"] == "b_restored.JPG"
    assert beside["x.gif"] == "x_restored.png"
    inside = [job.output.relative_to(folder / "out") for job in pair_outputs(selection, folder / "out")]
    assert Path("sub/a.png") in inside
    assert Path("x.png") in inside
    one = select_inputs([str(folder / "a.png")])
    assert pair_outputs(one, folder / "r.tiff")[0].output == folder / "r.tiff"
    assert pair_outputs(one, folder / "r")[0].output == folder / "r" / "a.png"


def test_conflicts(folder):
    twice = select_inputs([str(folder / "a.png"), str(folder / "sub" / "a.png")])
    with pytest.raises(OutputConflictError, match="both be written"):
        pair_outputs(twice, folder / "out")
    with pytest.raises(OutputConflictError, match="one of the inputs"):
        pair_outputs(select_inputs([str(folder)]), folder, overwrite=True)
    (folder / "a_restored.png").write_bytes(b"x")
    one = select_inputs([str(folder / "a.png")])
    with pytest.raises(OutputExistsError):
        pair_outputs(one, None)
    assert len(pair_outputs(one, None, resume=True)) == 1


@pytest.mark.parametrize("workers", [1, 3])
def test_one_failure_stops_nothing_else(tmp_path, workers):
    jobs = [Job(Path(f"{n}.png"), tmp_path / f"{n}.png") for n in range(6)]
    (tmp_path / "5.png").write_bytes(b"done")

    def do(job):
        if job.input.name == "1.png":
            raise MoirError("one is bad")
        if job.input.name == "2.png":
            raise ValueError("a defect")
        return {"seen": True}

    records = {r["input"]: r for r in run_jobs(jobs, do, workers=workers, resume=True)}
    assert len(records) == 6
    assert records["1.png"] == {"input": "1.png", "error": "one is bad"}
    assert records["2.png"]["error"] == "unexpected ValueError: a defect"
    assert records["5.png"]["skipped"]
    assert all(records[f"{n}.png"]["seen"] for n in (0, 3, 4))


def test_an_empty_selection_gives_no_jobs():
    assert pair_outputs(Selection([]), None) == []
