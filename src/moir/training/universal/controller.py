"""Training of the degradation extractor (UniRestorer, equation 3): image controller against texts of what was done.

The text tower of CLIP is frozen; the image controller learns so that its features of a damaged picture are near the
text of this picture and far from the texts of the others in the batch. Its added layers, which steer CLIP's own tower
in DA-CLIP, take no part in the loss and stay as they are, as in the published training.
"""

import logging
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from moir.base.errors import TrainingError
from moir.base.files import write_text
from moir.runtime.device import mixed_precision
from moir.training.data import Stream
from moir.training.universal.plots import draw_embedding, draw_matrix
from moir.training.universal.recipe import ControllerRecipe
from moir.training.universal.represent import to_json
from moir.training.universal.steps import OnStep, Plan, device_of, fit
from moir.training.universal.texts import DamagedSamples, TableSamples, TextSamples, read_table
from moir.universal.daclip import DaClip
from moir.universal.daclip_text import degradation_text, title
from moir.universal.daclip_tokens import read_tokenizer
from moir.universal.daclip_weights import read_clip, write_controller
from moir.universal.losses import LARGEST_SCALE, contrastive_loss

log = logging.getLogger(__name__)

RESULT = "controller.safetensors"
HELD_OUT = 400
"""Samples of the final account; damage that was not trained on, on pictures that were."""


def train_controller(
    recipe: ControllerRecipe, folder: str | Path, *, device: str | None = None, on_step: OnStep | None = None
) -> Path:
    """Train the image controller, or go on training it.

    The folder receives the state, the curves, ``controller.safetensors`` and, for pictures that are damaged here, the
    account of :func:`account_of`.

    Args:
        recipe: What to do.
        folder: Where everything is written.
        device: ``cpu``, ``cuda``; None: CUDA where there is one.
        on_step: Called after every step.

    Returns:
        The controller's weights, which the recipe of UniRestorer takes as ``extractor.weights``.

    Raises:
        CheckpointError: CLIP's weights or vocabulary are missing or of another kind.
        TrainingError: No usable pictures, a table that does not fit, or a loss that is not finite.
    """
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    where = device_of(device)
    network = read_clip(os.path.expandvars(recipe.clip.weights))
    samples = samples_of(recipe, network)
    write_text(out / "recipe.json", recipe.model_dump_json(indent=1), overwrite=True)
    network.requires_grad_(False)
    trained = Trained(network).to(where)
    network.to(where)
    for parameter in trained.parameters():
        parameter.requires_grad_(True)
    for parameter in network.visual_control.transformer.zero_modules.parameters():
        parameter.requires_grad_(False)

    half = mixed_precision(recipe.precision, where) == "bf16"

    def loss(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            trained.logit_scale.clamp_(0, LARGEST_SCALE)
        with torch.autocast(where.type, torch.bfloat16, enabled=half):
            features = network(batch["image"])
            with torch.no_grad():
                texts = network.clip.encode_text(batch["tokens"])
        return {"contrastive": contrastive_loss(features.float(), texts.float(), trained.logit_scale)}

    plan = Plan(
        recipe.steps, recipe.batch, lambda step: rate_of(recipe, step), recipe.data.workers, recipe.save_every,
        recipe.log_every, recipe.seed,
    )  # fmt: skip
    fit(trained, optimiser_of(trained, recipe), samples, loss, plan, out, device=where, on_step=on_step)
    facts = {"recipe": recipe.name, "steps": recipe.steps, "logit_scale": trained.logit_scale.item()}
    write_controller(out / RESULT, network, facts, overwrite=True)
    if isinstance(samples, DamagedSamples):
        to_json(out / "account.json", account_of(network, samples, out, where))
    return out / RESULT


class Trained(nn.Module):
    """What is trained of DA-CLIP: the controller and the scale of the logits."""

    def __init__(self, network: DaClip) -> None:
        super().__init__()
        self.visual_control = network.visual_control
        self.logit_scale = network.logit_scale


def samples_of(recipe: ControllerRecipe, network: DaClip) -> TextSamples:
    """The samples that a recipe describes, for a network.

    Raises:
        CheckpointError: The vocabulary is missing, or of another size than the text tower's.
        TrainingError: No pictures, or a table that does not fit.
    """
    context, words = network.clip.positional_embedding.shape[0], network.clip.token_embedding.num_embeddings
    tokenizer = read_tokenizer(os.path.expandvars(recipe.clip.vocabulary))
    if tokenizer.vocabulary > words:
        raise TrainingError(
            f"clip.vocabulary has {tokenizer.vocabulary} tokens, but the text tower of clip.weights knows {words}; "
            "take both from one CLIP"
        )
    rest = {"tokenizer": tokenizer, "context": context, "side": network.visual_control.side, "seed": recipe.seed}
    if recipe.table is not None:
        return TableSamples(recipe.table, **rest)
    captions = {} if recipe.captions is None else read_table(recipe.captions)
    return DamagedSamples(recipe.data, {path.resolve(): text for path, text in captions.items()}, **rest)


def optimiser_of(trained: nn.Module, recipe: ControllerRecipe) -> torch.optim.Optimizer:
    """AdamW, whose weight decay leaves out biases, norms and the logit scale (all that has one dimension or none)."""
    parameters = [p for p in trained.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, eps=recipe.epsilon)


def rate_of(recipe: ControllerRecipe, step: int) -> float:
    """The learning rate of a step, counted from 0: it rises over the warm-up, and falls as a cosine to 0.

    Examples:
        >>> recipe = ControllerRecipe(
        ...     name="r", clip={"weights": "w", "vocabulary": "v"}, table={"file": "t"}, steps=110, warmup=10,
        ...     learning_rate=1.0,
        ... )
        >>> [round(rate_of(recipe, step), 3) for step in (0, 9, 10, 60, 109)]
        [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


@torch.inference_mode()
def account_of(network: DaClip, samples: DamagedSamples, out: Path, device: torch.device) -> dict[str, Any]:
    """How well features tell damage apart: each picture is given the nearest text of all labels among the samples.

    Writes ``embedding.png`` and ``confusion.png``.

    Args:
        network: With the text tower.
        samples: Where pictures come from.
        out: The folder.
        device: Where the network is.

    Returns:
        Shares of right labels and of right types.
    """
    network.eval()
    stream = iter(Stream(1 << 40, 1))
    points, labels = [], []
    for _ in range(HELD_OUT):
        image, _, label = samples.labelled(next(stream))
        assert label is not None
        points.append(network(image[None].to(device)).float().cpu())
        labels.append(label)
    features = torch.cat(points)
    said = [degradation_text(label) for label in labels]
    kinds = sorted(set(said))
    tokens = samples.tokenizer([title("", kind) for kind in kinds], samples.context).to(device)
    texts = network.clip.encode_text(tokens).float().cpu()
    chosen = (F.normalize(features, dim=1) @ F.normalize(texts, dim=1).T).argmax(dim=1).numpy()
    true = np.array([kinds.index(kind) for kind in said])
    counts = np.zeros((len(kinds), len(kinds)))
    np.add.at(counts, (true, chosen), 1)
    draw_matrix(counts, kinds, kinds, out / "confusion.png", "damage", "nearest text")
    draw_embedding(features.numpy(), labels, out / "embedding.png")
    types = {kind: label.types for kind, label in zip(said, labels, strict=True)}
    right = [types[kinds[c]] == label.types for c, label in zip(chosen, labels, strict=True)]
    return {
        "pictures": len(labels),
        "labels_right": float((true == chosen).mean()),
        "types_right": float(np.mean(right)),
    }
