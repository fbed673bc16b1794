"""The ComfyUI node, called as ComfyUI calls it; with a stand-in where spandrel is not installed."""

import importlib.util
from pathlib import Path

import pytest
import torch

import moir
from moir.models import DEFAULT
from moir.plugins import spandrel as plugin

FILE = Path(__file__).parents[2] / "packaging" / "comfyui" / "__init__.py"


@pytest.fixture(scope="module")
def nodes():
    installed = []
    patch = pytest.MonkeyPatch()
    patch.setattr(plugin, "install", lambda: installed.append(True))
    spec = importlib.util.spec_from_file_location("moir_comfyui", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    patch.undo()
    assert installed == [True]
    return module


def test_the_node_restores_as_moir_does(nodes, photograph):
    node = nodes.NODE_CLASS_MAPPINGS["RestoreWithMoir"]()
    batch = torch.stack([photograph[:, :64, :80], photograph[:, 64:128, :80]]).movedim(1, -1)
    restored, report = getattr(node, node.FUNCTION)(image=batch, model=DEFAULT, task=nodes.ANY, strength=1.0)
    assert restored.shape == batch.shape
    expected = moir.load()(batch[1].movedim(-1, 0).contiguous()).tensor
    torch.testing.assert_close(restored[1].movedim(-1, 0), expected, atol=2e-3, rtol=0)
    assert len(report.splitlines()) == 2
    told, _ = node.restore(batch, DEFAULT, "derain", 0.0)
    torch.testing.assert_close(told, batch)


def test_every_choice_of_the_node_can_be_chosen(nodes):
    inputs = nodes.RestoreWithMoir.INPUT_TYPES()["required"]
    assert DEFAULT in inputs["model"][0]
    assert inputs["task"][0][0] == nodes.ANY
    assert set(nodes.NODE_DISPLAY_NAME_MAPPINGS) == set(nodes.NODE_CLASS_MAPPINGS)
