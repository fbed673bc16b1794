import asyncio
import json
import threading
import time
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest

from moir.picture import decode
from moir.serve import Settings, create_app

from .conftest import as_file, part


class Gate:
    """Holds the restorer's work until it is opened, and notes the batches."""

    def __init__(self, restorer, monkeypatch):
        self.opened, self.entered, self.sizes, self.stopped = threading.Event(), threading.Event(), [], 0
        real = restorer.batch

        def batch(pictures, *, on_tile, **options):
            self.sizes.append(len(pictures))
            self.entered.set()
            try:
                while not self.opened.wait(0.01):
                    on_tile(0, 1)
            except BaseException:
                self.stopped += 1
                raise
            return real(pictures, on_tile=on_tile, **options)

        monkeypatch.setattr(restorer, "batch", batch)

    async def closed_on(self):
        assert await asyncio.to_thread(self.entered.wait, 10)


@pytest.fixture
def gate(tiny_restorer, monkeypatch):
    gate = Gate(tiny_restorer, monkeypatch)
    yield gate
    gate.opened.set()


@asynccontextmanager
async def serving(restorer, **limits):
    app = create_app({"tiny": restorer}, Settings(**limits))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
            yield client, app.state.service


def random_picture(seed, height=24, width=32):
    return as_file(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


async def until(condition):
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


def test_two_hundred_clients_and_nothing_lost_or_mixed_up(tiny_restorer):
    pictures = [random_picture(seed, 16 + 8 * (seed % 3)) for seed in range(200)]

    async def run():
        async with serving(tiny_restorer) as (client, service):
            answers = await asyncio.gather(
                *(client.post("/v1/restore", files=part(p, f"{n}.png")) for n, p in enumerate(pictures))
            )
            alone = [await client.post("/v1/restore", files=part(pictures[n])) for n in (0, 1, 2, 100, 199)]
            assert service.admitted == 0
            assert service._budget.used == 0
            return answers, alone, service.metrics.text()

    answers, alone, text = asyncio.run(run())
    assert [a.status_code for a in answers] == [200] * 200
    assert [json.loads(a.headers["X-Moir-Report"])["input"] for a in answers] == [f"{n}.png" for n in range(200)]
    for n, single in zip((0, 1, 2, 100, 199), alone, strict=True):
        difference = decode(answers[n].content).to_numpy().astype(int) - decode(single.content).to_numpy()
        assert abs(difference).max() <= 1  # a batch rounds differently in the last digit
    assert 'moir_requests_total{route="/v1/restore",status="200"} 205' in text


def test_what_waits_runs_together_if_it_is_alike(tiny_restorer, gate):
    async def run():
        async with serving(tiny_restorer, batch=4) as (client, service):
            first = asyncio.create_task(client.post("/v1/restore", files=part(random_picture(0))))
            await gate.closed_on()
            alike = [asyncio.create_task(client.post("/v1/restore", files=part(random_picture(n)))) for n in range(6)]
            larger = asyncio.create_task(client.post("/v1/restore", files=part(random_picture(9, 40))))
            other = asyncio.create_task(
                client.post("/v1/restore", files=part(random_picture(9)), data={"strength": "0.5"})
            )
            await until(lambda: service.batcher.waiting == 8)
            gate.opened.set()
            return await asyncio.gather(first, *alike, larger, other)

    assert {a.status_code for a in asyncio.run(run())} == {200}
    assert gate.sizes[0] == 1
    assert sorted(gate.sizes[1:]) == [1, 1, 2, 4]


def test_a_full_queue_says_when_to_come_back(tiny_restorer, gate):
    async def run():
        async with serving(tiny_restorer, queue=2) as (client, service):
            taken = [asyncio.create_task(client.post("/v1/restore", files=part(random_picture(n)))) for n in range(2)]
            await until(lambda: service.admitted == 2)
            refused = await client.post("/v1/restore", files=part(random_picture(2)))
            unready = await client.get("/readyz")
            gate.opened.set()
            return refused, unready, await asyncio.gather(*taken)

    refused, unready, taken = asyncio.run(run())
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert "error" in refused.json()
    assert unready.status_code == 503
    assert [a.status_code for a in taken] == [200, 200]


def test_what_takes_too_long_is_answered_and_stopped(tiny_restorer, gate):
    async def run():
        async with serving(tiny_restorer, timeout=0.4) as (client, _):
            late = await client.post("/v1/restore", files=part(random_picture(0)))
            await until(lambda: gate.stopped == 1)
            gate.opened.set()
            return late, await client.post("/v1/restore", files=part(random_picture(0)))

    late, fine = asyncio.run(run())
    assert late.status_code == 504
    assert "0.4 s" in late.json()["error"]
    assert fine.status_code == 200


def test_one_failure_in_a_batch_stays_alone(tiny_restorer, monkeypatch):
    real = tiny_restorer.batch

    def batch(pictures, **options):
        if any(float(p.rgb.max()) == 0 for p in pictures):
            raise ValueError("black")
        return real(pictures, **options)

    monkeypatch.setattr(tiny_restorer, "batch", batch)
    black = as_file(np.zeros((24, 32, 3), np.uint8))
    pictures = [random_picture(0), black, random_picture(1)]

    async def run():
        async with serving(tiny_restorer, linger=0.5, batch=3) as (client, _):
            return await asyncio.gather(*(client.post("/v1/restore", files=part(p)) for p in pictures))

    assert [a.status_code for a in asyncio.run(run())] == [200, 500, 200]


def test_a_client_that_leaves_stops_its_work(tiny_restorer, gate):
    async def run():
        async with serving(tiny_restorer) as (client, service):
            body = client.build_request("POST", "http://test/v1/restore", files=part(random_picture(0)))
            content = await body.aread()
            leaving, sent, messages = asyncio.Event(), [], []

            async def receive():
                if not messages:
                    messages.append({"type": "http.request", "body": content, "more_body": False})
                    return messages[0]
                await leaving.wait()
                return {"type": "http.disconnect"}

            async def send(message):
                sent.append(message)

            headers = [(k.lower().encode(), v.encode()) for k, v in body.headers.items()]
            scope = {"type": "http", "method": "POST", "path": "/v1/restore", "raw_path": b"/v1/restore",
                     "headers": headers, "query_string": b"", "http_version": "1.1", "scheme": "http",
                     "root_path": ""}  # fmt: skip
            task = asyncio.create_task(client._transport.app(scope, receive, send))
            await gate.closed_on()
            began = time.monotonic()
            leaving.set()
            await task
            await until(lambda: gate.stopped == 1)
            assert time.monotonic() - began < 5
            assert service.admitted == 0
            assert service._budget.used == 0
            return sent[0]["status"]

    assert asyncio.run(run()) == 499


def test_going_down_finishes_what_was_taken(tiny_restorer, gate):
    async def run():
        async with serving(tiny_restorer) as (client, service):
            tasks = [asyncio.create_task(client.post("/v1/restore", files=part(random_picture(n)))) for n in range(3)]
            await until(lambda: service.batcher.waiting + service.batcher.running == 3)
            closing = asyncio.create_task(service.stop())
            await until(lambda: not service.batcher.alive)
            late = await client.post("/v1/restore", files=part(random_picture(9)))
            gate.opened.set()
            await closing
            return late, await asyncio.gather(*tasks)

    late, done = asyncio.run(run())
    assert late.status_code == 503
    assert late.headers["retry-after"]
    assert [a.status_code for a in done] == [200] * 3


def test_decoded_pixels_are_bounded(tiny_restorer, gate):
    async def run():
        async with serving(tiny_restorer, memory_pixels=2 * 24 * 32) as (client, service):
            tasks = [asyncio.create_task(client.post("/v1/restore", files=part(random_picture(n)))) for n in range(6)]
            await gate.closed_on()
            await asyncio.sleep(0.2)
            assert service._budget.used <= 2 * 24 * 32
            assert service.batcher.waiting + service.batcher.running <= 2
            gate.opened.set()
            return await asyncio.gather(*tasks)

    assert [a.status_code for a in asyncio.run(run())] == [200] * 6
