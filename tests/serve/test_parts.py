import asyncio
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moir.base.errors import InvalidValueError
from moir.serve import Settings
from moir.serve.batcher import Batcher, Job
from moir.serve.budget import Budget
from moir.serve.metrics import Metrics
from moir.serve.uploads import plain_name


@settings(max_examples=60)
@given(st.text(max_size=300))
def test_names_are_labels_and_never_paths(name):
    plain = plain_name(name)
    assert plain
    assert len(plain) <= 120
    assert "/" not in plain
    assert "\\" not in plain
    assert plain not in (".", "..")
    plain.encode()


@pytest.mark.parametrize("wrong", [{"queue": 0}, {"max_bytes": 0}, {"timeout": 0}, {"linger": -1}, {"token": " "}])
def test_settings_that_let_nothing_through(wrong):
    with pytest.raises(InvalidValueError, match=next(iter(wrong))):
        Settings(**wrong)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 50), max_size=30), st.data())
def test_the_budget_holds_and_everybody_gets_in(amounts, data):
    leaving = data.draw(st.sets(st.integers(0, max(0, len(amounts) - 1))))

    async def run():
        budget, inside, done = Budget(40), [], []

        async def one(number, amount):
            async with budget.hold(amount):
                inside.append(amount)
                try:
                    assert sum(inside) <= 40 or len(inside) == 1
                    await asyncio.sleep(0)
                    done.append(number)
                finally:
                    inside.remove(amount)

        tasks = [asyncio.create_task(one(n, a)) for n, a in enumerate(amounts)]
        await asyncio.sleep(0)
        for number in leaving & set(range(len(tasks))):
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert budget.used == 0
        return done

    done = asyncio.run(run())
    assert set(done) >= set(range(len(amounts))) - leaving


def test_a_cancelled_job_is_left_out():
    started, go, ran = threading.Event(), threading.Event(), []

    def run(payloads, stop):
        started.set()
        go.wait(5)
        ran.extend(payloads)
        return payloads

    batcher = Batcher()
    first = batcher.submit(Job("a", run, 1))
    assert started.wait(5)
    second = batcher.submit(Job("a", run, 2))
    third = batcher.submit(Job("a", run, 3))
    assert second.cancel()
    go.set()
    assert batcher.close(5)
    assert (first.result(), third.result(), ran) == (1, 3, [1, 3])
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(Job("a", run, 4))


def test_metrics_text():
    metrics = Metrics()
    metrics.counter("c_total", "A count.")
    metrics.histogram("h", "A spread.", (1, 2))
    metrics.gauge("g", "A level.", lambda: 7)
    metrics.add("c_total", 2, path='a"b')
    for value in (0.5, 1, 1.5, 9):
        metrics.observe("h", value)
    lines = metrics.text().splitlines()
    assert r'c_total{path="a\"b"} 2' in lines
    assert [line for line in lines if line.startswith("h_bucket")] == [
        'h_bucket{le="1"} 2',
        'h_bucket{le="2"} 3',
        'h_bucket{le="+Inf"} 4',
    ]
    assert "h_sum 12.000000" in lines
    assert "g 7" in lines
