"""`moir.evaluation.bench`: what is planned, what is measured, and what is refused. Times themselves are not judged."""

import time
from dataclasses import replace

import pytest
import torch

from moir.base.errors import DeviceError, InvalidValueError, MissingExtraError, MoirError, UnknownNameError
from moir.evaluation import bench as room
from moir.evaluation.bench import engines as engines_module
from moir.evaluation.bench import run as run_module
from moir.evaluation.bench.ceilings import measure_ceilings
from moir.evaluation.bench.engines import EngineKind
from moir.evaluation.bench.memory import peak_of
from moir.evaluation.bench.models import open_model
from moir.evaluation.cost import count_macs, example
from moir.metrics import psnr
from moir.models import create_model


@pytest.fixture
def slow_and_wrong(monkeypatch):
    """An engine that waits 30 ms and adds 0.1 to what is right."""

    def prepare(network, device, precision):
        right = engines_module.yardstick(network, device, precision)

        def run(x):
            time.sleep(0.03)
            return right(x) + 0.1

        return run

    monkeypatch.setitem(engines_module.ENGINES, "wrong", EngineKind(prepare, ("float32",), ("cpu",)))


def test_the_yardstick_of_each_model_and_size_comes_first():
    cases = room.plan(["test_unet", "test_compact"], [32, 48], ["float32", "bf16"], ["plain"], "cpu")
    assert [(c.model, c.size, c.engine, c.precision) for c in cases[:4]] == [
        ("test_unet", 32, "yardstick", "float32"),
        ("test_unet", 32, "plain", "float32"),
        ("test_unet", 32, "plain", "bf16"),
        ("test_unet", 48, "yardstick", "float32"),
    ]
    assert len(cases) == 12


def test_rows_say_how_fast_and_how_exact(slow_and_wrong):
    cases = room.plan(["test_compact"], [40], ["float32"], ["plain", "wrong"], "cpu")
    rows = {row.engine: row for row in room.bench(cases, repeats=2, memory=False)}
    assert list(rows) == ["yardstick", "plain", "wrong"]
    assert (rows["yardstick"].ratio, rows["yardstick"].psnr_to_yardstick) == (1.0, None)
    assert rows["plain"].psnr_to_yardstick is None or rows["plain"].psnr_to_yardstick > 100
    wrong = rows["wrong"]
    assert wrong.psnr_to_yardstick == pytest.approx(20, abs=0.1)
    assert wrong.max_error == pytest.approx(0.1, abs=1e-4)
    assert wrong.median_s >= wrong.min_s >= 0.03
    network, weights = open_model("test_compact")
    assert wrong.weights == weights == "random"
    assert wrong.macs == count_macs(network, (40, 40))
    assert wrong.gflops == pytest.approx(2 * wrong.macs / wrong.min_s / 1e9)
    assert wrong.share_of_peak == pytest.approx(wrong.gflops / wrong.peak_gflops)
    assert wrong.ratio == pytest.approx(rows["yardstick"].min_s / wrong.min_s)


def test_half_precision_differs_from_the_yardstick_and_stays_close():
    cases = room.plan(["test_restormer"], [32], ["bf16"], ["plain"], "cpu")
    row = list(room.bench(cases, repeats=1, memory=False))[1]
    assert row.psnr_to_yardstick is not None
    assert 35 < row.psnr_to_yardstick < 100


def test_the_picture_is_restored_so_often_and_in_turns(monkeypatch):
    calls = []

    def counted(name):
        def prepare(network, device, precision):
            def run(x):
                calls.append(name)
                return x

            return run

        return prepare

    monkeypatch.setattr(run_module, "yardstick", counted("yardstick"))
    for name in ("a", "b"):
        monkeypatch.setitem(engines_module.ENGINES, name, EngineKind(counted(name), ("float32",), ("cpu",)))
    seen = []
    cases = room.plan(["test_unet"], [16], ["float32"], ["a", "b"], "cpu")
    rows = list(room.bench(cases, repeats=3, memory=False, on_run=lambda *step: seen.append(step[1:])))
    assert calls == ["yardstick", "a", "b"] * 4  # the first round is not counted
    assert [row.repeats for row in rows] == [3, 3, 3]
    assert seen[-1] == (3, 3)


def test_memory_is_that_of_a_process_of_its_own():
    case = room.plan(["test_unet"], [192], ["float32"], ["plain"], "cpu")[1]
    peak = peak_of(case)
    if peak is None:
        pytest.skip("no /proc here: memory cannot be told")
    assert 0 < peak < 500
    with pytest.raises(MoirError, match="exit code"):
        peak_of(replace(case, model="test_nothing"))


def test_an_engine_that_does_not_serve_a_model_is_left_out_unless_it_was_named(monkeypatch):
    def prepare(network, device, precision):
        raise InvalidValueError("not for UNets")

    for name in set(engines_module.ENGINES) - {"plain"}:
        monkeypatch.delitem(engines_module.ENGINES, name)
    monkeypatch.setitem(engines_module.ENGINES, "picky", EngineKind(prepare, ("float32",), ("cpu",)))
    notes = []
    rows = room.bench(
        room.plan(["test_unet"], [16], ["float32"], None, "cpu"), repeats=1, memory=False, note=notes.append
    )
    assert [row.engine for row in rows] == ["yardstick", "plain"]
    assert "not for UNets" in notes[0]
    with pytest.raises(InvalidValueError, match="not for UNets"):
        list(room.bench(room.plan(["test_unet"], [16], ["float32"], ["picky"], "cpu"), repeats=1, memory=False))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"models": ["test_compcat"]}, UnknownNameError, "test_compact"),
        ({"sizes": [0]}, InvalidValueError, "size 0"),
        ({"precisions": ["bf61"]}, UnknownNameError, "bf16"),
        ({"precisions": ["fp16"], "device": "cpu"}, DeviceError, "fp16"),
        ({"engines": ["plane"]}, UnknownNameError, "plain"),
        ({"engines": ["onnxruntime"], "precisions": ["bf16"]}, MoirError, "onnxruntime"),
        ({"device": "cuda:99"}, DeviceError, "cuda:99"),
    ],
)
def test_what_is_not_possible_is_refused_before_any_work(arguments, error, message):
    with pytest.raises(error, match=message):
        room.plan(**{"device": "cpu", **arguments})


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(
        engines_module.ENGINES, "far", EngineKind(engines_module.plain, needs=("no_such_package_here",))
    )
    with pytest.raises(MissingExtraError, match="no_such_package_here"):
        room.plan(["test_unet"], engines=["far"], device="cpu")
    assert "far" not in {case.engine for case in room.plan(["test_unet"], device="cpu")}


def test_no_timed_run_is_refused():
    with pytest.raises(InvalidValueError, match="repeats 0"):
        list(room.bench([], repeats=0))


def test_random_weights_are_always_the_same_and_no_branch_is_switched_off():
    (first, _), (second, _) = open_model("test_nafnet"), open_model("test_nafnet")
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.any()
    x = example((16, 16))[None]
    assert psnr(first(x), x) < 60


def test_ceilings_are_rates_of_this_machine():
    found = measure_ceilings(torch.device("cpu"), ["float32"])
    assert 0.1 < found.gflops["float32"] < 1e5
    assert 0.1 < found.copy_gb_s < 1e4


def test_overhead_counts_and_runs():
    (row,) = room.overhead(["test_unet"], size=32, device="cpu", repeats=1)
    network, _ = open_model("test_unet")
    assert row["parameters"] == sum(p.numel() for p in network.parameters())
    assert row["macs"] == count_macs(network, (32, 32))
    assert row["median_s"] > 0
    assert "note" not in row


def test_a_model_beyond_the_limit_is_counted_only():
    (row,) = room.overhead(["test_unet"], size=32, device="cpu", limit=0)
    assert row["macs"] > 0
    assert row["median_s"] is None
    assert "not run" in row["note"]


def test_impossible_overheads():
    with pytest.raises(UnknownNameError, match="test_unet"):
        list(room.overhead(["test_unte"]))
    with pytest.raises(InvalidValueError, match="at least"):
        list(room.overhead(["test_unet"], size=0))


def test_what_is_made_when_it_is_needed_is_made_outside_the_compiler(monkeypatch):
    network, restored = create_model("test_unet"), []
    network.register_forward_hook(lambda *_: restored.append(True))
    before = []

    def compile_(forward, dynamic):
        before.append(len(restored))
        return lambda *given: forward(*given)

    monkeypatch.setattr(torch, "compile", compile_)
    run = engines_module.compiled(network, "cpu", "float32")
    first, second = (run(torch.full((1, 3, 16, 16), 0.5)) for _ in range(2))
    assert before == [1]  # compiled once, after the module itself restored once
    assert torch.equal(first, second)
