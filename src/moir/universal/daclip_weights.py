"""Weights of the degradation extractor: a controller alone, a whole DA-CLIP, a UniRestorer, or CLIP to start from."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from moir.base.errors import CheckpointError
from moir.checkpoints import write_tensors
from moir.checkpoints.safetensors import check_fit
from moir.universal.daclip import DaClip
from moir.universal.store import TensorStore, open_store

CONTROL = "visual_control."
TOWER = "visual."
MARK = "conv1.weight"


def extractor_options(
    shapes: Mapping[str, tuple[int, ...]], prefix: str = "", control: str = CONTROL
) -> dict[str, Any]:
    """Options of :class:`~moir.universal.daclip.DaClip`, told by shapes.

    Args:
        shapes: Names to shapes.
        prefix: What the extractor's names begin with.
        control: What the names of the vision tower that tells the options begin with, after the prefix.

    Raises:
        CheckpointError: There is no such tower.
    """
    tower, blocks = f"{prefix}{control}", "transformer.transformer." if control == CONTROL else "transformer."
    try:
        width, _, patch, _ = shapes[f"{tower}{MARK}"]
        tokens, _ = shapes[f"{tower}positional_embedding"]
        _, features = shapes[f"{tower}proj"]
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"it has no image controller ({tower}{MARK} and so on)") from error
    options: dict[str, Any] = {
        "features": features,
        "side": round((tokens - 1) ** 0.5) * patch,
        "patch": patch,
        "width": width,
        "layers": _layers(shapes, f"{tower}{blocks}"),
    }
    clip = f"{prefix}clip." if control == CONTROL else prefix
    texts, words = (shapes.get(f"{clip}{n}") for n in ("positional_embedding", "token_embedding.weight"))
    if texts and words and len(texts) == len(words) == 2:
        options |= {
            "text_width": texts[1],
            "text_layers": _layers(shapes, f"{clip}transformer."),
            "text_context": texts[0],
            "vocabulary": words[0],
        }
    return options


def read_controller(path: str | Path) -> DaClip:
    """The image controller of a file, frozen, in evaluation mode; nothing else of the file is read.

    Args:
        path: A controller, a whole DA-CLIP (``daclip.pt``), or a whole UniRestorer.

    Raises:
        CheckpointError: The file is missing, unsafe, damaged, or has no image controller.
    """
    store = open_store(path)
    prefix = next((p for p in ("", "daclip_model.") if f"{p}{CONTROL}{MARK}" in store.shapes), None)
    if prefix is None:
        raise CheckpointError(
            f"{path} has no image controller ({CONTROL}{MARK}); train one: recipes/daclip_controller.yaml"
        )
    options = {k: v for k, v in extractor_options(store.shapes, prefix).items() if k in CONTROLLER_OPTIONS}
    network = DaClip(parts="controller", **options)
    tensors = {name.removeprefix(prefix): value for name, value in _read(store, f"{prefix}{CONTROL}").items()}
    check_fit(network, tensors, path)
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False)


CONTROLLER_OPTIONS = ("features", "side", "patch", "width", "layers")


def write_controller(path: str | Path, network: DaClip, facts: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Write the image controller alone, which is all that UniRestorer runs.

    Args:
        path: The .safetensors file.
        network: What was trained.
        facts: Anything JSON can hold, for the header.
        overwrite: Replace a file that is there.
    """
    state = {f"{CONTROL}{name}": value for name, value in network.visual_control.state_dict().items()}
    write_tensors(path, state, facts, overwrite=overwrite)


def read_clip(path: str | Path) -> DaClip:
    """CLIP as DA-CLIP begins: the controller is a copy of CLIP's vision tower, its added layers are 0.

    Args:
        path: CLIP's state dict under OpenCLIP's names, or a whole DA-CLIP, which is taken as it is.

    Raises:
        CheckpointError: The file is missing, unsafe, damaged, or neither of the two.
    """
    store = open_store(path)
    shapes = store.shapes
    whole = f"{CONTROL}{MARK}" in shapes and f"clip.{TOWER}{MARK}" in shapes
    if not whole and (f"{TOWER}{MARK}" not in shapes or "token_embedding.weight" not in shapes):
        raise CheckpointError(f"{path} is neither CLIP ({TOWER}{MARK}, token_embedding.weight) nor a whole DA-CLIP")
    network = DaClip(**extractor_options(shapes, control=CONTROL if whole else TOWER))
    if whole:
        tensors = store.read(shapes)
        check_fit(network, tensors, path)
        network.load_state_dict(tensors)
        return network
    # Some programs save what can be computed: the causal mask, the sizes.
    usual = set(network.clip.state_dict())
    tensors = store.read(n for n in shapes if n in usual or n.split(".")[0] in ("visual", "transformer"))
    check_fit(network.clip, tensors, path)
    network.clip.load_state_dict(tensors)
    control = network.visual_control
    tower = network.clip.visual.state_dict()
    copied = {re.sub(r"^transformer\.", "transformer.transformer.", name): value for name, value in tower.items()}
    control.load_state_dict({**control.state_dict(), **copied})
    with torch.no_grad():
        network.logit_scale.copy_(network.clip.logit_scale)
    return network


def _read(store: TensorStore, prefix: str) -> dict[str, torch.Tensor]:
    return store.read(name for name in store.shapes if name.startswith(prefix))


def _layers(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    pattern = re.compile(rf"{re.escape(prefix)}resblocks\.(\d{{1,3}})\.")
    return 1 + max((int(m[1]) for name in shapes if (m := pattern.match(name))), default=-1)
