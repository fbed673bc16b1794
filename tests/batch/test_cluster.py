"""A Ray cluster of this machine alone."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from moir.base.errors import InvalidValueError, OutputExistsError
from moir.batch import Settings
from moir.batch.cluster import pair_up, restore_on_cluster
from moir.batch.cluster_worker import Worker
from moir.batch.manifest import lines_of
from moir.batch.remote import exists_url, list_files, local_name, read_url, write_url
from moir.picture import read

pytest.importorskip("pyarrow", reason="needs the extra 'cluster'")


def test_urls_are_listed_read_and_written(many, tmp_path):
    folder = many(2)
    # fsspec's "local" file system stands for what Arrow does not know itself.
    url = f"local://{folder}"
    assert [name for _, name in list_files(url, recursive=False)] == ["0000.png", "0001.png", "broken.png"]
    assert read_url(f"{url}/0000.png") == (folder / "0000.png").read_bytes()
    target = f"local://{tmp_path}/far/a.png"
    assert not exists_url(target)
    write_url(target, b"one", overwrite=False)
    with pytest.raises(OutputExistsError):
        write_url(target, b"two", overwrite=False)
    write_url(target, b"three", overwrite=True)
    assert (tmp_path / "far" / "a.png").read_bytes() == b"three"
    assert [path.name for path in (tmp_path / "far").iterdir()] == ["a.png"]


def test_file_urls_are_paths():
    assert local_name("file:///data/two%20words") == "/data/two words"
    assert local_name("/data/two%20words") == "/data/two%20words"


def test_pairs_of_urls(many, tmp_path):
    url = f"local://{many(1)}"
    pairs, skipped = pair_up([url], f"local://{tmp_path}/out", recursive=False, resume=False, overwrite=False)
    assert pairs[0] == (f"{url}/0000.png", f"local://{tmp_path}/out/0000.png")
    assert skipped == []
    with pytest.raises(InvalidValueError, match="--output"):
        pair_up([url], None, recursive=False, resume=False, overwrite=False)


class _Crashing(Worker):
    """An actor that one picture kills, as a crash of a decoder would."""

    def _all(self, pairs):
        if any(source.endswith("0003.png") for source, _ in pairs):
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._all(pairs)


@pytest.fixture
def cluster():
    """Ray with two cores, and no way to anybody else."""
    ray = pytest.importorskip("ray", reason="needs the extra 'cluster'")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1",
        object_store_memory=100 * 2**20,
    )  # fmt: skip
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_a_killed_worker_costs_no_picture_and_none_is_done_twice(cluster, many, tiny_model, tmp_path):
    folder, out, manifest = many(150), tmp_path / "out", tmp_path / "out.manifest.jsonl"
    killed = []
    records = []

    def report(record):
        records.append(record)
        if not killed and len(records) >= 10 and "worker" in record:
            killed.append(record["worker"])
            os.kill(record["worker"], signal.SIGKILL)

    settings = Settings(str(tiny_model), device="cpu", precision="float32")
    restore_on_cluster([f"file://{folder}"], out, settings, report, address="auto", workers=2)
    assert killed
    assert Counter(r["input"] for r in records) == Counter(str(file) for file in folder.iterdir())
    assert [r["input"] for r in records if "error" in r] == [str(folder / "broken.png")]
    assert sorted(f.name for f in out.iterdir()) == [f"{n:04}.png" for n in range(150)]
    assert len({r["worker"] for r in records}) >= 3  # the dead one, the other, and the new one
    lines = [line for line in lines_of(manifest) if "input" in line]
    assert Counter(line["input"] for line in lines) == Counter(r["input"] for r in records)
    for line in lines:
        if "error" not in line:
            assert line["output_stat"] == [Path(line["output"]).stat().st_size, Path(line["output"]).stat().st_mtime_ns]
    # As one process alone does them.
    alone = settings.load()
    for number in (0, 75, 149):
        expected = alone(folder / f"{number:04}.png").picture.to_numpy()
        assert (read(out / f"{number:04}.png").to_numpy() == expected).all()
    again = []
    (folder / "broken.png").unlink()
    restore_on_cluster([str(folder)], out, settings, again.append, address="auto", resume=True)
    assert Counter(bool(r.get("skipped")) for r in again) == {True: 150}


@pytest.mark.slow
def test_a_deadly_picture_does_not_stop_the_others(cluster, many, tiny_model, tmp_path, monkeypatch):
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests
    folder = many(6)
    monkeypatch.setattr("moir.batch.cluster.Worker", _Crashing)
    records = []
    settings = Settings(str(tiny_model), device="cpu", precision="float32")
    restore_on_cluster([str(folder)], tmp_path / "out", settings, records.append, address="auto", workers=1)
    failed = {Path(r["input"]).name: r["error"] for r in records if "error" in r}
    assert set(failed) == {"0003.png", "broken.png"}
    assert "3 workers died with it" in failed["0003.png"]
    assert Counter(Path(r["input"]).name for r in records) == Counter(file.name for file in folder.iterdir())
    assert len(list((tmp_path / "out").iterdir())) == 5


@pytest.mark.slow
def test_urls_from_the_command_line(many, tiny_model, tmp_path):
    pytest.importorskip("ray", reason="needs the extra 'cluster'")
    folder = many(4)
    (folder / "broken.png").unlink()
    command = [sys.executable, "-m", "moir", "restore", f"local://{folder}", "--output", f"local://{tmp_path}/far",
               "--model", str(tiny_model), "--ray", "local", "--device", "cpu", "--json"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 4
    assert len(list((tmp_path / "far").glob("*.png"))) == 4
    with pytest.raises(OutputExistsError, match=r"0000\.png exists already"):
        pair_up([f"local://{folder}"], f"local://{tmp_path}/far", recursive=False, resume=False, overwrite=False)
