"""From an upload to an answer: admission, decoding within a budget, the queue, encoding."""

import asyncio
import functools
import math
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from moir import degrade
from moir.base.errors import CheckpointError, PictureTooLargeError
from moir.picture import Picture, decode, encode, prepare_colour
from moir.restore import Restoration, Restorer
from moir.serve.batcher import Batcher, Job, Stop
from moir.serve.budget import Budget
from moir.serve.failures import RefusedError
from moir.serve.metrics import Metrics
from moir.serve.options import FileOptions, RestoreOptions
from moir.serve.pool import Pool
from moir.serve.settings import Settings
from moir.serve.uploads import Upload, declared_pixels


@dataclass(frozen=True)
class Answer:
    """A picture file and its account."""

    data: bytes
    name: str
    report: dict[str, Any]


class Service:
    """What the routes call. Belongs to one event loop, from :meth:`start` to :meth:`stop`."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self.pool = pool
        self.settings = settings
        self.admitted = 0
        self.seconds = 1.0  # of one picture, a running mean
        self.metrics = Metrics()
        self.batcher: Batcher | None = None
        self._declare()

    def start(self) -> None:
        """Begin to work; to be called in the event loop."""
        self.batcher = Batcher(self.settings.linger, self._on_batch)
        self._budget = Budget(self.settings.memory_pixels)
        # Decoding and encoding compete with the network for cores, so only a few of each at a time.
        self._hands = asyncio.Semaphore(max(2, os.cpu_count() or 2))
        self._readers = asyncio.Semaphore(4)

    async def stop(self) -> None:
        """Finish what was taken, then end."""
        if self.batcher is not None:
            await asyncio.to_thread(self.batcher.close, self.settings.timeout)

    @property
    def ready(self) -> bool:
        """Whether a picture sent now would be taken and worked on."""
        alive = self.batcher is not None and self.batcher.alive
        return alive and self.admitted < self.settings.queue and self.pool.loaded(self.pool.default)

    @contextmanager
    def admission(self) -> Iterator[None]:
        """A place in the bounded queue, during the block.

        Raises:
            RefusedError: 429, all places are taken; 503, the server is going down.
        """
        if self.batcher is None or not self.batcher.alive:
            raise RefusedError(503, "the server is going down; try again in a while", {"Retry-After": "10"})
        if self.admitted >= self.settings.queue:
            wait = min(120, max(1, math.ceil(self.admitted * self.seconds)))
            raise RefusedError(
                429, f"{self.admitted} pictures are waiting already; try again in {wait} s", {"Retry-After": str(wait)}
            )
        self.admitted += 1
        try:
            yield
        finally:
            self.admitted -= 1

    async def restore(self, upload: Upload, options: RestoreOptions) -> Answer:
        """Restore one picture."""
        name = self.pool.check(options.model)

        def run(pictures: Sequence[Picture], stop: Stop) -> list[Restoration]:
            restorer = self._restorer(name)
            return restorer.batch(
                pictures, task=options.task, strength=options.strength, on_tile=lambda done, tiles: stop()
            )

        async with self._within_time(), self._opened(upload) as picture:
            key = ("restore", name, options.task, options.strength)
            result: Restoration = await self._queued(key, name, run, picture)
            self.metrics.add("moir_pixels_total", picture.width * picture.height)
            output = options.file.output_name(upload.name, picture.source_format, "restored")
            report = {"input": upload.name, "output": output, **result.report()}
            return Answer(await self._encoded(result.picture, output, options.file), output, report)

    async def inspect(self, upload: Upload, model: str | None) -> dict[str, Any]:
        """Say what is wrong with one picture."""
        name = self.pool.check(model)
        run = functools.partial(self._inspect_many, name)
        async with self._within_time(), self._opened(upload) as picture:
            report: dict[str, Any] = await self._queued(("inspect", name), name, run, picture)
        return {"input": upload.name, **report}

    async def degrade(self, upload: Upload, spec: str, seed: int, file: FileOptions) -> Answer:
        """Damage one picture on purpose."""
        request = degrade.parse(spec)

        def run(pictures: Sequence[Picture], stop: Stop) -> list[tuple[Picture, list[dict[str, Any]]]]:
            picture = pictures[0]
            params = request.sample(torch.Generator().manual_seed(seed))
            damaged = degrade.apply(prepare_colour(picture)[None], [params])[0]
            return [(picture.with_rgb(damaged), [p.to_json() for p in params])]

        async with self._within_time(), self._opened(upload) as picture:
            damaged, damage = await self._do(Job(object(), run, picture))
            output = file.output_name(upload.name, picture.source_format, "degraded")
            report = {"input": upload.name, "output": output, "width": picture.width, "height": picture.height}
            report |= {"seed": seed, "damage": damage}
            return Answer(await self._encoded(damaged, output, file), output, report)

    async def preview(self, upload: Upload) -> bytes:
        """The picture as PNG of 8 bits, for browsers that cannot show its format."""
        async with self._within_time(), self._opened(upload) as picture:
            plain = Picture(picture.rgb, picture.alpha, picture.grey, icc=picture.icc)
            return await self._encoded(plain, "x.png", FileOptions())

    def _inspect_many(self, name: str, pictures: Sequence[Picture], stop: Stop) -> list[dict[str, Any]]:
        return [found.report() for found in self._restorer(name).inspect_batch(pictures)]

    def _restorer(self, name: str) -> Restorer:
        try:
            return self.pool.get(name)
        except CheckpointError as error:
            # The message names files of the server, which are no business of its clients.
            raise RuntimeError(f"the model {name} cannot be loaded") from error

    @asynccontextmanager
    async def _opened(self, upload: Upload) -> AsyncIterator[Picture]:
        """The decoded picture; it stays within the budget of decoded pixels during the block."""
        limit = self.settings.max_pixels
        await self._readers.acquire()
        reading = True
        try:
            data = await upload.file.read()
            await upload.file.close()
            pixels = await asyncio.to_thread(declared_pixels, data)
            if pixels is not None and pixels > limit:
                raise PictureTooLargeError(
                    f"{upload.name} declares {pixels:,} pixels, more than this server's limit of {limit:,}; "
                    "send a smaller picture"
                )
            async with self._budget.hold(limit if pixels is None else pixels):
                async with self._hands:
                    picture = await asyncio.to_thread(decode, data, name=upload.name, max_pixels=limit)
                del data
                self._readers.release()
                reading = False
                yield picture
        finally:
            if reading:
                self._readers.release()

    async def _queued(self, key: tuple[Any, ...], model: str, run: Any, picture: Picture) -> Any:
        pixels = picture.width * picture.height
        most = self.pool.together(model, pixels, self.settings.batch)
        return await self._do(Job((*key, picture.width, picture.height), run, picture, most))

    async def _do(self, job: Job) -> Any:
        assert self.batcher is not None
        return await asyncio.wrap_future(self.batcher.submit(job))

    async def _encoded(self, picture: Picture, name: str, file: FileOptions) -> bytes:
        suffix = "." + name.rpartition(".")[2].lower()
        async with self._hands:
            return await asyncio.to_thread(encode, picture, suffix, quality=file.quality)

    @asynccontextmanager
    async def _within_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.settings.timeout):
                yield
        except TimeoutError:
            raise RefusedError(
                504, f"the picture was not done within {self.settings.timeout:g} s; send a smaller one, or try later"
            ) from None

    def _on_batch(self, count: int, seconds: float) -> None:
        self.seconds += 0.2 * (seconds / count - self.seconds)
        self.metrics.observe("moir_batch_size", count)
        self.metrics.observe("moir_batch_seconds", seconds)

    def _declare(self) -> None:
        new = self.metrics
        bounds = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
        new.counter("moir_requests_total", "Requests answered, by route and status.")
        new.histogram("moir_request_seconds", "Time from request to answer, by route.", bounds)
        new.counter("moir_pixels_total", "Pixels restored.")
        new.histogram("moir_batch_size", "Pictures that ran together.", (1, 2, 4, 8, 16, 32))
        new.histogram("moir_batch_seconds", "Time of a batch.", bounds)
        new.gauge("moir_admitted", "Requests with a picture, waiting or running.", lambda: self.admitted)
        new.gauge("moir_queue_limit", "Requests with a picture that are admitted at once.", lambda: self.settings.queue)
        new.gauge("moir_queued", "Decoded pictures that wait.", lambda: self.batcher.waiting if self.batcher else 0)
        new.gauge("moir_running", "Pictures that run now.", lambda: self.batcher.running if self.batcher else 0)
        new.gauge("moir_ready", "Whether a picture sent now would be taken.", lambda: self.ready)
