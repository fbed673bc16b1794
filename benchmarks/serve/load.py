"""Load test of the server on this machine: throughput and latency against in-process calls, and whether any is lost.

    python benchmarks/serve/load.py --clients 200 --requests 400 --size 256

Every client sends one picture after another over real connections. Every answer is compared with what the same
restorer gave in this process; a difference of more than one level, a missing answer or another status counts as lost.
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import torch

import moir
from moir.picture import Picture, decode, encode

DISTINCT = 8  # different pictures, sent in turn


def pictures(size: int) -> list[bytes]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(DISTINCT):
        coarse = torch.rand(1, 3, max(2, size // 16), max(2, size // 16), generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")[0]
        noisy = smooth + 0.08 * torch.randn(3, size, size, generator=generator)
        made.append(encode(Picture(noisy.clamp(0, 1)), ".png"))
    return made


def in_process(files: list[bytes], requests: int, model: str | None) -> tuple[dict, list[np.ndarray]]:
    """The same work without a server: decode, restore, encode, one after another."""
    restorer = moir.load(model, device="cpu")
    expected = [decode(encode(restorer(decode(f)).picture, ".png")).to_numpy() for f in files]  # also warms up
    times = []
    began = time.perf_counter()
    for number in range(requests):
        start = time.perf_counter()
        encode(restorer(decode(files[number % DISTINCT])).picture, ".png")
        times.append(time.perf_counter() - start)
    return row("in process", times, time.perf_counter() - began, 0), expected


def row(name: str, times: list[float], wall: float, lost: int) -> dict:
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {"run": name, "requests": len(times), "lost": lost, "per_second": round(len(times) / wall, 2),
            "p50_s": round(cuts[49], 3), "p95_s": round(cuts[94], 3), "p99_s": round(cuts[98], 3),
            "max_s": round(max(times), 3)}  # fmt: skip


async def load(url: str, files: list[bytes], expected: list[np.ndarray], clients: int, requests: int) -> dict:
    numbers = iter(range(requests))
    times: list[float] = []
    bad: list[str] = []
    good = 0
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:

        async def one() -> None:
            nonlocal good
            for number in numbers:
                which = number % DISTINCT
                start = time.perf_counter()
                try:
                    answer = await client.post("/v1/restore", files={"file": (f"{number}.png", files[which])})
                    times.append(time.perf_counter() - start)
                    if answer.status_code != 200:
                        bad.append(f"{number}: {answer.status_code} {answer.text[:100]}")
                        continue
                    named = json.loads(answer.headers["X-Moir-Report"])["input"]
                    got = decode(answer.content).to_numpy()
                    difference = np.abs(got.astype(int) - expected[which]).max()
                    if named != f"{number}.png" or difference > 1:
                        bad.append(f"{number}: answer of {named}, difference {difference}")
                    else:
                        good += 1
                except httpx.HTTPError as error:
                    bad.append(f"{number}: {error!r}")

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(clients)))
        wall = time.perf_counter() - began
    for line in bad[:5]:
        print(line, file=sys.stderr)
    lost = requests - good
    return row(f"{clients} client{'s' * (clients > 1)}", times, wall, lost)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 200])
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--size", type=int, default=256, help="side of the pictures, pixels")
    parser.add_argument("--model")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()

    files = pictures(options.size)
    rows = []
    first, expected = in_process(files, min(options.requests, 100), options.model)
    rows.append(first)
    command = [sys.executable, "-m", "moir", "serve", "--port", "0", "--device", "cpu"]
    command += ["--model", options.model] if options.model else []
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        url = next(line.split("serving at ")[1].split()[0] for line in server.stderr if "serving at" in line)
        asyncio.run(load(url, files, expected, 1, 5))  # warm
        for clients in options.clients:
            rows.append(asyncio.run(load(url, files, expected, clients, max(clients, options.requests))))
        text = httpx.get(url + "metrics").text
        batches = {
            k: float(v)
            for k, v in (line.rsplit(" ", 1) for line in text.splitlines() if "batch_size" in line and line[0] != "#")
        }
        print(f"mean batch {batches['moir_batch_size_sum'] / batches['moir_batch_size_count']:.2f}", file=sys.stderr)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    print(f"{options.size}x{options.size} PNG, {os.cpu_count()} cores, {platform.processor() or platform.machine()}\n")
    print("| run | requests | lost | per second | p50 s | p95 s | p99 s | max s |\n|---|---|---|---|---|---|---|---|")
    for r in rows:
        print("| " + " | ".join(str(v) for v in r.values()) + " |")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(any(r["lost"] for r in rows))


if __name__ == "__main__":
    main()
