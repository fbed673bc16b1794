"""Damage on purpose: seven degradations, their severities, and the pipeline that composes them.

Each degradation first samples its parameters (a small frozen dataclass that can be saved as JSON), then applies them,
so that any damaged picture can be made again, bit for bit on the same device, from a clean one and its record.
"""

from moir.degrade.base import Degradation, Params, params_from_json
from moir.degrade.pipeline import MIXES, ORDER, Pipeline, apply, degradation, quantise, sample
from moir.degrade.severity import SEVERITIES, degree_of
from moir.degrade.spec import Request, parse

__all__ = [
    "MIXES",
    "ORDER",
    "SEVERITIES",
    "Degradation",
    "Params",
    "Pipeline",
    "Request",
    "apply",
    "degradation",
    "degree_of",
    "params_from_json",
    "parse",
    "quantise",
    "sample",
]
