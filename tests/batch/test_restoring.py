"""Many files: what is recorded, what is left out, and what a kill leaves behind."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from moir.base.errors import InvalidValueError, OutputExistsError, UnknownNameError
from moir.batch import Options, Settings, default_manifest, pair_outputs, restore_many, select_inputs
from moir.batch.inputs import Job
from moir.batch.manifest import Manifest, held, lines_of, read_done, recorded
from moir.batch.workers import Place, _work, places


@pytest.fixture
def run(tiny_model, tmp_path):
    """Restore a folder into ``out`` and return the records."""

    def go(folder, resume=False, overwrite=False, workers=1, **settings):
        records = []
        jobs = pair_outputs(select_inputs([str(folder)]), tmp_path / "out", resume=resume, overwrite=overwrite)
        options = Options(workers, default_manifest(tmp_path / "out", jobs), resume, overwrite)
        settings = Settings(str(tiny_model), device="cpu", precision="float32", **settings)
        restore_many(jobs, settings, records.append, options)
        return records

    return go


def status(records):
    return Counter("error" if "error" in r else "skipped" if r.get("skipped") else "done" for r in records)


def test_every_file_is_recorded_with_what_it_was_made_from(run, many, tmp_path):
    records = run(many(5))
    assert status(records) == {"done": 5, "error": 1}
    lines = list(lines_of(tmp_path / "out.manifest.jsonl"))
    assert lines[0]["settings"]["model"] == "tiny"
    assert len(lines) == 7
    assert all(line["key"] == lines[0]["key"] for line in lines)
    (failed,) = [line for line in lines if "error" in line]
    assert failed["input"].endswith("broken.png")
    for line in lines[1:]:
        if "error" not in line:
            assert line["output_stat"][0] == Path(line["output"]).stat().st_size
            assert line["input_stat"] == [Path(line["input"]).stat().st_size, Path(line["input"]).stat().st_mtime_ns]
            assert line["estimate"]


def test_resume_does_only_what_is_not_done(run, many, tmp_path):
    folder = many(6)
    run(folder)
    out = tmp_path / "out"
    before = {file.name: file.stat().st_mtime_ns for file in out.iterdir()}
    manifest = tmp_path / "out.manifest.jsonl"
    # Killed after the line and before the name: the line alone does not count.
    (out / "0001.png").unlink()
    # Killed within a line.
    manifest.write_bytes(manifest.read_bytes()[:-40])
    (out / ".0003.abcdefgh.part.png").write_bytes(b"half")
    (folder / "broken.png").unlink()
    assert status(run(folder, resume=True)) == {"skipped": 5, "done": 1}
    assert not list(out.glob(".*"))
    assert {f: t for f, t in before.items() if f != "0001.png"}.items() <= {
        file.name: file.stat().st_mtime_ns for file in out.iterdir()
    }.items()
    assert (out / "0001.png").stat().st_mtime_ns > before["0001.png"]
    assert len(read_done(manifest)) == 5  # the line that was cut off stays away; its output is left alone
    assert status(run(folder, resume=True)) == {"skipped": 6}


def test_other_settings_are_refused_or_done_again(run, many, tmp_path):
    folder = many(2)
    (folder / "broken.png").unlink()
    run(folder)
    before = (tmp_path / "out" / "0000.png").read_bytes()
    with pytest.raises(InvalidValueError, match=r"strength was 1\.0 and is 0\.5"):
        run(folder, resume=True, strength=0.5)
    assert (tmp_path / "out" / "0000.png").read_bytes() == before
    assert status(run(folder, resume=True, overwrite=True, strength=0.5)) == {"done": 2}
    assert (tmp_path / "out" / "0000.png").read_bytes() != before
    assert status(run(folder, resume=True, overwrite=True, strength=0.5)) == {"skipped": 2}


def test_an_ensemble_is_another_setting(run, many, tmp_path):
    folder = many(1)
    (folder / "broken.png").unlink()
    run(folder)
    assert "ensemble" not in next(lines_of(tmp_path / "out.manifest.jsonl"))["settings"]
    with pytest.raises(InvalidValueError, match="ensemble was None and is True"):
        run(folder, resume=True, ensemble=True)


def test_a_changed_input_or_output_is_not_taken_for_done(run, many, tmp_path):
    folder = many(3)
    (folder / "broken.png").unlink()
    run(folder)
    (folder / "0000.png").write_bytes((folder / "0001.png").read_bytes())
    (tmp_path / "out" / "0002.png").write_bytes(b"edited")
    os.utime(tmp_path / "out" / "0001.png")  # copied about, but the same
    records = {r["input"][-8:]: r for r in run(folder, resume=True)}
    assert "has changed since" in records["0000.png"]["error"]
    assert records["0001.png"]["skipped"]
    assert "was changed after it was written" in records["0002.png"]["error"]
    assert (tmp_path / "out" / "0002.png").read_bytes() == b"edited"


def test_mistakes_are_found_before_any_work(run, many):
    with pytest.raises(UnknownNameError, match="derain"):
        run(many(1), tasks=("derian",))


def test_two_runs_do_not_share_a_manifest(tmp_path, monkeypatch):
    monkeypatch.setattr("moir.batch.manifest.PATIENCE", 0.2)
    path = tmp_path / "m.jsonl"
    with held(path, alone=True), pytest.raises(OutputExistsError, match="another run"), held(path, alone=True):
        pass


def test_results_of_an_earlier_run_are_no_inputs(many, tmp_path):
    folder = many(1)
    (folder / "0000_restored.png").write_bytes(b"x")
    (folder / ".0000_restored.abcdefgh.part.png").write_bytes(b"x")
    jobs = pair_outputs(select_inputs([str(folder)]), None, resume=True)
    assert [job.input.name for job in jobs] == ["0000.png", "broken.png"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("cpu", 3, None, 8, 0, None), ["cpu/8"]),
        (("cpu", 1000, None, 8, 0, None), ["cpu/1"] * 8),
        (("cpu", 1000, None, 8, 0, 3 * 2**30), ["cpu/4"] * 2),
        (("cpu", 1000, 3, 8, 0, None), ["cpu/2"] * 3),
        (("cpu", 2, 16, 8, 0, None), ["cpu/4"] * 2),
        (("cuda", 1000, None, 8, 2, None), ["cuda:0/1", "cuda:1/1"]),
        (("cuda", 1000, 3, 8, 2, None), ["cuda:0/1", "cuda:1/1", "cuda:0/1"]),
        (("cuda:1", 1000, None, 8, 2, None), ["cuda:1/1"]),
    ],
)
def test_cores_and_gpus_are_shared_out_once(arguments, expected):
    assert [f"{place.device}/{place.threads}" for place in places(*arguments)] == expected


def wait_for(condition, process=None, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline and (process is None or process.poll() is None):
        time.sleep(0.02)
    assert condition()


@pytest.mark.skipif(os.name != "posix", reason="holds a manifest by flock")
def test_a_worker_is_given_work_only_while_it_keeps_the_next_run_waiting(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("moir.batch.manifest.PATIENCE", 0.2)
    path = tmp_path / "m.jsonl"
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    how = {"manifest": Manifest(path, "key"), "overwrite": False, "resume": False}
    worker = spawn.Process(target=_work, args=(theirs, Settings(model=str(tiny_model)), Place("cpu", 1), how))
    worker.start()
    theirs.close()
    assert ours.poll(300)
    assert ours.recv() is None  # ready: from here on jobs may lie in the pipe
    with pytest.raises(OutputExistsError, match="another run"), held(path, alone=True):
        pass
    ours.close()
    worker.join(300)
    assert worker.exitcode == 0
    with held(path, alone=True):
        pass


def test_what_a_worker_finished_before_it_died_is_not_done_again(run, many, tmp_path):
    folder = many(2)
    (folder / "broken.png").unlink()
    records = {record["output"]: record for record in run(folder)}
    path = tmp_path / "out.manifest.jsonl"
    line = next(line for line in lines_of(path) if line.get("output", "").endswith("0001.png"))
    job = Job(folder / "0001.png", tmp_path / "out" / "0001.png")
    assert recorded(Manifest(path, line["key"]), job) == records[str(job.output)]
    assert recorded(Manifest(path, "other"), job) is None
    with path.open("a") as file:  # a line by another program, say, that does not say enough
        file.write(json.dumps({"output": str(job.output), "key": line["key"], "sha256": "0"}) + "\n")
    assert recorded(Manifest(path, line["key"]), job) == records[str(job.output)]
    os.utime(job.input)
    assert recorded(Manifest(path, line["key"]), job) is None


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
def test_a_killed_worker_and_a_killed_run_lose_and_repeat_nothing(many, tiny_model, tmp_path):
    folder, out, manifest = many(60), tmp_path / "out", tmp_path / "out.manifest.jsonl"
    command = [sys.executable, "-m", "moir", "restore", str(folder), "--model", str(tiny_model), "--output", str(out),
               "--jobs", "2", "--device", "cpu", "--json"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    first = json.loads(process.stdout.readline())
    os.kill(first["worker"], signal.SIGKILL)  # the other worker and a new one go on
    seen = [first]
    while len(seen) < 25:
        seen.append(json.loads(process.stdout.readline()))
    process.kill()
    process.stdout.close()
    process.wait()
    resumed = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    records = [json.loads(line) for line in resumed.stdout.splitlines()]
    assert resumed.returncode == 1, resumed.stderr  # broken.png
    assert len(records) == 61
    assert {r["input"] for r in records if "error" in r} == {str(folder / "broken.png")}
    assert {r["output"] for r in seen if "output" in r} <= {r["output"] for r in records if r.get("skipped")}
    assert sorted(file.name for file in out.iterdir()) == [f"{n:04}.png" for n in range(60)]
    written = Counter(line["output"] for line in lines_of(manifest) if "sha256" in line)
    assert len(written) == 60
    # A line may stand without its output if the kill fell between the two: at most one per worker that was killed.
    assert sum(written.values()) <= 60 + 3
