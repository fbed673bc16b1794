import argparse
import enum
import gzip
import json
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def published_shapes() -> dict[str, dict[str, list[int]]]:
    """Names and shapes of both published sizes."""
    with gzip.open(FIXTURES / "moce_ir_keys.json.gz", "rt") as file:
        return json.load(file)


@pytest.fixture(scope="session")
def full_state(published_shapes: dict[str, dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Made-up weights under the full key list of MoCE-IR-S."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: 0.02 * torch.randn(shape, generator=generator) for name, shape in published_shapes["moce_ir_s"].items()
    }


@pytest.fixture(scope="session")
def tiny_state() -> dict[str, torch.Tensor]:
    from moir.models import create_model

    torch.manual_seed(0)
    return dict(create_model("test_moce_ir").state_dict())


@pytest.fixture
def research_classes() -> Iterator[dict[str, type]]:
    """Classes of programs that wrote checkpoints; they are gone when the file is read."""

    class Stage(enum.Enum):
        FIT = "fit"

    class TrainOptions:
        pass

    class AttributeDict(dict[str, Any]):
        pass

    class ModelCheckpoint:
        pass

    places = {
        "research.options": (Stage, TrainOptions),
        "pytorch_lightning.utilities.parsing": (AttributeDict,),
        "pytorch_lightning.callbacks.model_checkpoint": (ModelCheckpoint,),
    }
    made: dict[str, type] = {}
    fake: list[str] = []
    for path, classes in places.items():
        parts = path.split(".")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            if name not in sys.modules:
                sys.modules[name] = types.ModuleType(name)
                fake.append(name)
        for kind in classes:
            kind.__module__, kind.__qualname__ = path, kind.__name__
            setattr(sys.modules[path], kind.__name__, kind)
            made[kind.__name__] = kind
    yield made
    for name in fake:
        sys.modules.pop(name, None)


@pytest.fixture
def lightning(research_classes: dict[str, type]) -> Callable[..., dict[str, Any]]:
    """Wraps a state dict as Lightning does: ``lightning(state, topk=1)``."""

    def wrap(state: dict[str, torch.Tensor], **settings: Any) -> dict[str, Any]:
        return _lightning(state, research_classes, **settings)

    return wrap


def _lightning(state: dict[str, torch.Tensor], classes: dict[str, type], **settings: Any) -> dict[str, Any]:
    """The outer form that Lightning gives a checkpoint, with the objects found in published ones."""
    options = classes["TrainOptions"]()
    options.stage, options.root = classes["Stage"].FIT, Path("/data")
    some = next(iter(state.values()))
    return {
        "epoch": 119,
        "global_step": 301200,
        "pytorch-lightning_version": "2.0.1",
        "state_dict": OrderedDict((f"net.{name}", value) for name, value in state.items()),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 120}}}},
        "callbacks": {
            "ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(30.0), "dirpath": "ckpt"},
            classes["ModelCheckpoint"]: {"best": classes["Stage"].FIT},
        },
        "optimizer_states": [{"state": {0: {"exp_avg": some.clone()}}, "param_groups": [{"betas": (0.9, 0.999)}]}],
        "lr_schedulers": [{"base_lrs": [2e-4], "_step_count": 120}],
        "hparams_name": "opt",
        "hyper_parameters": classes["AttributeDict"](
            opt=argparse.Namespace(de_type=["denoise_15"], lr=2e-4, **settings), options=options
        ),
    }
