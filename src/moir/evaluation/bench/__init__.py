"""How fast, on this machine: models in several precisions and engines, beside the straightforward module in float32."""

from moir.evaluation.bench.engines import ENGINES, YARDSTICK
from moir.evaluation.bench.overhead import overhead
from moir.evaluation.bench.plan import Case, plan
from moir.evaluation.bench.run import Row, bench

__all__ = ["ENGINES", "YARDSTICK", "Case", "Row", "bench", "overhead", "plan"]
