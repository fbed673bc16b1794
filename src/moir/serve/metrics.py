"""Counters in Prometheus' text format (version 0.0.4), without a client library: three kinds of numbers are enough."""

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """A set of named numbers; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._help: dict[str, tuple[str, str]] = {}
        self._counters: dict[str, dict[Labels, float]] = {}
        self._gauges: dict[str, Callable[[], float]] = {}
        self._bounds: dict[str, Sequence[float]] = {}
        self._counts: dict[str, dict[Labels, list[int]]] = {}
        self._sums: dict[str, dict[Labels, float]] = {}

    def counter(self, name: str, text: str) -> None:
        """Declare a number that only grows."""
        self._help[name] = ("counter", text)
        self._counters[name] = defaultdict(float)

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Declare a number that is asked for when it is read."""
        self._help[name] = ("gauge", text)
        self._gauges[name] = value

    def histogram(self, name: str, text: str, bounds: Sequence[float]) -> None:
        """Declare a distribution with these upper bounds (and infinity)."""
        self._help[name] = ("histogram", text)
        self._bounds[name] = bounds
        self._counts[name] = defaultdict(lambda: [0] * (len(bounds) + 1))
        self._sums[name] = defaultdict(float)

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        with self._lock:
            self._counters[name][tuple(sorted(labels.items()))] += amount

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Count a value into a histogram."""
        key = tuple(sorted(labels.items()))
        with self._lock:
            self._counts[name][key][bisect_left(self._bounds[name], value)] += 1
            self._sums[name][key] += value

    def text(self) -> str:
        """Everything, as Prometheus reads it."""
        lines = []
        with self._lock:
            for name, (kind, text) in self._help.items():
                lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
                if kind == "gauge":
                    lines.append(f"{name} {self._gauges[name]():g}")
                elif kind == "counter":
                    lines += [f"{name}{_braces(key)} {value:g}" for key, value in sorted(self._counters[name].items())]
                else:
                    lines += self._histogram_lines(name)
        return "\n".join(lines) + "\n"

    def _histogram_lines(self, name: str) -> list[str]:
        lines = []
        for key, counts in sorted(self._counts[name].items()):
            total = 0
            for bound, count in zip((*self._bounds[name], float("inf")), counts, strict=True):
                total += count
                le = "+Inf" if bound == float("inf") else f"{bound:g}"
                lines.append(f"{name}_bucket{_braces((*key, ('le', le)))} {total}")
            lines.append(f"{name}_sum{_braces(key)} {self._sums[name][key]:.6f}")
            lines.append(f"{name}_count{_braces(key)} {total}")
        return lines


def _braces(labels: Labels) -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels) + "}" if labels else ""
