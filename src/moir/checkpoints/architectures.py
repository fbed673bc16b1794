"""Which network a state dict belongs to, and with which options, told by its names and shapes.

To add a network, add a row to :data:`ARCHITECTURES`: names that only its state dicts have, and a function that reads
the options. What shapes cannot tell is left to the network's defaults, or taken from the file's own settings if it
states them.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moir.base.errors import CheckpointError, InvalidValueError
from moir.networks.adaptation_tasks import TASK_SCALES
from moir.networks.edt import HEAD_OF_TASK, HEAD_SCALES
from moir.networks.moce_ir_expert import RankType, expert_ranks

Shapes = Mapping[str, tuple[int, ...]]

PUBLISHED_EXPANSIONS = (2.0, 2.66)


@dataclass(frozen=True)
class Architecture:
    """How one family of networks is recognised.

    Attributes:
        models: Names in the registry; the first is the usual one.
        marks: Names that every state dict of the family has, and no other.
        options: Shapes to options, as far as shapes tell.
        model: Which of ``models`` these options make.
        settings: Options that shapes do not tell and that a file may state among its hyper-parameters, with their
            types.
        stated: The same where a file calls them otherwise: hyper-parameters, and the options that shapes tell, to
            options.
        licence: What is known of the licence of published weights.
    """

    models: Sequence[str]
    marks: Sequence[str]
    options: Callable[[Shapes], dict[str, Any]]
    licence: str
    model: Callable[[Mapping[str, Any]], str] = lambda options: ""
    settings: Mapping[str, type] = field(default_factory=dict)
    stated: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]] = lambda settings, options: {}


@dataclass(frozen=True)
class Detected:
    """What was recognised: a name of the registry, options, and the licence known for such weights."""

    model: str
    options: dict[str, Any]
    licence: str


UNKNOWN_LICENCE = "unknown: treat as non-commercial until the authors of the weights say otherwise"


NO_LICENCE = "unclear: treat as non-commercial. UniRestorer states no licence for its weights"


def detect(shapes: Shapes, settings: Mapping[str, Any] | None = None, model: str | None = None) -> Detected:
    """Recognise a state dict.

    Args:
        shapes: Names to shapes.
        settings: Hyper-parameters that the file states.
        model: The name of the registry, if it is known; then only the options are read.

    Raises:
        CheckpointError: No network of the table has such names.

    Examples:
        >>> detect({"prompt1.prompt_param": (1, 5, 64, 64, 64)}, model="promptir").options["prompt_len"]
        5
    """
    found = next((a for a in ARCHITECTURES if all(mark in shapes for mark in a.marks)), None)
    if found is None or (model is not None and model.removeprefix("test_") not in found.models):
        if model is not None:
            return Detected(model, {}, UNKNOWN_LICENCE)
        known = ", ".join(name for a in ARCHITECTURES for name in a.models)
        some = ", ".join(list(shapes)[:4])
        raise CheckpointError(
            f"its {len(shapes)} tensors ({some}, ...) belong to no network that is recognised ({known}); "
            "if it is another of 'moir models', name it with --model (model=...)"
        )
    try:
        options = found.options(shapes)
    except (KeyError, IndexError, ZeroDivisionError, InvalidValueError):
        options = {}  # tensors are missing: the strict check against the defaults says which
    for name, kind in found.settings.items():
        if type((settings or {}).get(name)) is kind:
            options[name] = (settings or {})[name]
    options |= found.stated(settings or {}, options)
    return Detected(model or found.model(options) or found.models[0], options, found.licence)


def _blocks(shapes: Shapes, prefix: str) -> int:
    """Number of blocks ``prefix0.``, ``prefix1.``, ...: the highest number and one, so that a gap is found out."""
    numbers = [int(m[1]) for name in shapes if (m := re.match(rf"{re.escape(prefix)}(\d{{1,4}})\.", name))]
    return max(numbers, default=-1) + 1


def _expansion(pairs: Sequence[tuple[int, int]]) -> float:
    """The hidden width over the width that gives all these (width, hidden width)."""
    width, hidden = pairs[-1]
    rounded = (math.ceil(hidden / width * digits) / digits for digits in (1, 10, 100, 1000))
    for expansion in (*PUBLISHED_EXPANSIONS, *rounded, (hidden + 0.5) / width):
        if all(int(w * expansion) == h for w, h in pairs):
            return expansion
    return hidden / width


def _moce_ir_options(shapes: Shapes) -> dict[str, Any]:
    levels = _blocks(shapes, "enc.") + 1
    encoders = [f"enc.{level}.0.layers." for level in range(levels - 1)] + ["latent.layers."]
    decoders = [f"dec.{stage}.2.layers." for stage in range(levels - 1)]  # deepest first
    dim = shapes["patch_embed.proj.weight"][0]
    experts = shapes[f"{decoders[0]}0.adapter.routing.gate.2.weight"][0]
    ranks = [
        (
            shapes[f"{decoder}0.adapter.proj_out.weight"][0],
            [shapes[f"{decoder}0.adapter.experts.{i}.0.proj.0.weight"][0] for i in range(experts)],
        )
        for decoder in decoders
    ]
    return {
        "dim": dim,
        "levels": levels,
        "heads": tuple(shapes[f"{prefix}0.mixer.temperature"][0] for prefix in encoders),
        "num_blocks": tuple(_blocks(shapes, prefix) for prefix in encoders),
        "num_dec_blocks": tuple(_blocks(shapes, prefix) for prefix in reversed(decoders)),
        "ffn_expansion_factor": _expansion(
            [(dim * 2**level, shapes[f"{prefix}0.ffn.project_out.weight"][1]) for level, prefix in enumerate(encoders)]
        ),
        "num_refinement_blocks": _blocks(shapes, "refinement.layers."),
        "num_experts": experts,
        "stage_depth": (1,) * (levels - 1),  # no effect as published, but there must be one per stage
        **_rank_options(ranks),
    }


def _rank_options(ranks: Sequence[tuple[int, list[int]]]) -> dict[str, Any]:
    """The rank type, and the rank where it counts, that give these (width, ranks of the experts) per level."""
    smallest = ranks[0][1][0]
    kinds: list[RankType] = ["spread", "constant", "lin", "double", "exp", "fact"]
    for kind in kinds:
        for rank in [2] if kind == "spread" else sorted({smallest, 1, 2, 3, 4, 5, 6}):
            try:
                if all(expert_ranks(kind, rank, width, len(those)) == those for width, those in ranks):
                    return {"rank_type": kind, "rank": rank}
            except InvalidValueError:
                continue
    return {}


def _restormer_options(shapes: Shapes) -> dict[str, Any]:
    dim = shapes["patch_embed.proj.weight"][0]
    levels = [f"encoder_level{level}." for level in (1, 2, 3)] + ["latent."]
    return {
        "dim": dim,
        "num_blocks": tuple(_blocks(shapes, prefix) for prefix in levels),
        "num_refinement_blocks": _blocks(shapes, "refinement."),
        "heads": tuple(shapes[f"{prefix}0.attn.temperature"][0] for prefix in levels),
        "ffn_expansion_factor": _expansion(
            [(dim * 2**level, shapes[f"{prefix}0.ffn.project_out.weight"][1]) for level, prefix in enumerate(levels)]
        ),
        "bias": f"{levels[0]}0.attn.qkv.bias" in shapes,
        "LayerNorm_type": "WithBias" if f"{levels[0]}0.norm1.body.bias" in shapes else "BiasFree",
    }


def _lora_restormer_options(shapes: Shapes) -> dict[str, Any]:
    base = {name.replace(".conv.", "."): shape for name, shape in shapes.items() if ".lora_" not in name}
    return _restormer_options(base) | {"r": shapes["encoder_level1.0.attn.qkv.lora_A"][0]}


def _retinexformer_options(shapes: Shapes) -> dict[str, Any]:
    denoiser = "body.0.denoiser."
    levels = [f"{denoiser}{part}.blocks." for part in ("encoder_layers.0.0", "encoder_layers.1.0", "bottleneck")]
    return {
        "n_feat": shapes["body.0.estimator.conv1.weight"][0],
        "stage": _blocks(shapes, "body."),
        "num_blocks": tuple(_blocks(shapes, prefix) for prefix in levels),
    }


def _nafnet_options(shapes: Shapes) -> dict[str, Any]:
    return {
        "width": shapes["intro.weight"][0],
        "middle_blk_num": _blocks(shapes, "middle_blks."),
        "enc_blk_nums": tuple(_blocks(shapes, f"encoders.{i}.") for i in range(_blocks(shapes, "downs."))),
        "dec_blk_nums": tuple(_blocks(shapes, f"decoders.{i}.") for i in range(_blocks(shapes, "ups."))),
    }


def _nafnet_model(options: Mapping[str, Any]) -> str:
    """Pooling leaves no trace in a file: networks sized as published for denoising pool globally, others locally."""
    return "nafnet" if options.get("enc_blk_nums") == (2, 2, 4, 8) else "nafnet_local"


def _dehazeformer_options(shapes: Shapes) -> dict[str, Any]:
    layers = [f"layer{i}.blocks." for i in range(1, 6)]
    depths = [_blocks(shapes, prefix) for prefix in layers]
    widths = [shapes[f"{prefix}0.mlp.mlp.0.weight"][:2] for prefix in layers]  # hidden, block
    # The bias of every attention: pixels of a window (squared), and per head.
    attention = [
        [f"{prefix}{i}.attn.attn." for i in range(depth) if f"{prefix}{i}.attn.attn.relative_positions" in shapes]
        for prefix, depth in zip(layers, depths, strict=True)
    ]
    pixels = next((shapes[f"{found[0]}relative_positions"][0] for found in attention if found), 64)
    return {
        "embed_dims": tuple(dim for _, dim in widths),
        "mlp_ratios": tuple(hidden / dim for hidden, dim in widths),
        "depths": tuple(depths),
        "num_heads": tuple(shapes[f"{found[0]}meta.2.weight"][0] if found else 1 for found in attention),
        "attn_ratio": tuple(len(found) / depth for found, depth in zip(attention, depths, strict=True)),
        "window_size": math.isqrt(pixels),
    }


def _adapter(shapes: Shapes) -> dict[str, Any]:
    """The adapter, in files of networks that were adapted."""
    return {"adapter": "adaptir"} if any(".adaptir." in name for name in shapes) else {}


def _stated_task(settings: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The task that AdaptIR's program trained for, if the file's head is one for it."""
    stated = settings.get("de_type")
    tasks = stated if isinstance(stated, list | tuple) else [stated]
    if len(tasks) != 1 or tasks[0] not in TASK_SCALES:
        return {}
    fits = "task" not in options or HEAD_OF_TASK[tasks[0]] in options.get("heads", [HEAD_OF_TASK[options["task"]]])
    return {"task": tasks[0]} if fits else {}


def _ipt_options(shapes: Shapes) -> dict[str, Any]:
    """All but the number of attention heads and, unless it is stated, the task, which leave no trace."""
    n_feats, dim = shapes["head.0.0.weight"][0], shapes["body.linear_encoding.weight"][0]
    patch_dim = math.isqrt(dim // n_feats)
    return {
        "n_feats": n_feats,
        "patch_size": math.isqrt(shapes["body.position_encoding.pe.weight"][0]) * patch_dim,
        "patch_dim": patch_dim,
        "num_layers": _blocks(shapes, "body.encoder.layers."),
        **_adapter(shapes),
    }


def _edt_options(shapes: Shapes) -> dict[str, Any]:
    """All but the shape of the windows and the number of attention heads, which leave no trace."""
    heads = [name for name in HEAD_SCALES if f"head_{name}.0.weight" in shapes]
    last = heads[-1] if heads[0].startswith("sr_") else heads[0]  # of super-resolution, the largest scale
    dim = shapes["body.norm.weight"][0]
    blocks = [f"body.layers.{i}.residual_group.blocks." for i in range(_blocks(shapes, "body.layers."))]
    masks = next((shape for name, shape in shapes.items() if name.endswith("attn_mask_h")), (16, 144, 144))
    return {
        "task": next(task for task, head in HEAD_OF_TASK.items() if head == last),
        **({"heads": tuple(heads)} if len(heads) > 1 else {}),
        "num_feat": shapes[f"head_{last}.0.weight"][0],
        "embed_dim": dim,
        "depths": tuple(_blocks(shapes, prefix) for prefix in blocks),
        "num_heads": (6,) * len(blocks),  # published; there must be one per group
        "mlp_ratio": shapes[f"{blocks[0]}0.mlp.fc1.weight"][0] / dim,
        "img_size": math.isqrt(masks[0] * masks[1]),
        **_adapter(shapes),
    }


def _edt_model(options: Mapping[str, Any]) -> str:
    head = HEAD_OF_TASK[options.get("task", "sr_4")]
    return {"sr": f"edt_sr{head[-1]}", "dn": "edt_denoise", "dr": "edt_derain"}[head[:2]]


def _promptir_options(shapes: Shapes) -> dict[str, Any]:
    prompts = [shapes[f"prompt{level}.prompt_param"] for level in (1, 2, 3) if f"prompt{level}.prompt_param" in shapes]
    found: dict[str, Any] = {"prompt_len": prompts[0][1]}
    if len(prompts) == 3:
        found |= {"prompt_dims": tuple(p[2] for p in prompts), "prompt_sizes": tuple(p[3] for p in prompts)}
    return found | (_restormer_options(shapes) if "patch_embed.proj.weight" in shapes else {})


ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        models=("moce_ir_s", "moce_ir"),
        marks=("freq_embed.mlp.0.weight", "dec.0.2.layers.0.adapter.proj_out.weight"),
        options=_moce_ir_options,
        model=lambda options: "moce_ir" if options.get("dim") == 48 else "moce_ir_s",
        settings={"topk": int, "with_complexity": bool, "complexity_scale": str},
        licence="unclear: treat as non-commercial. The MoCE-IR repository carries an Apache-2.0 licence file, its "
        "Jittor port says CC BY-NC-SA 4.0 (academic use only)",
    ),
    Architecture(
        models=("promptir",),
        marks=("prompt1.prompt_param",),
        options=_promptir_options,
        licence="non-commercial: the PromptIR repository allows academic use; ask its authors for anything else",
    ),
    Architecture(
        models=("lora_restormer",),
        marks=("encoder_level1.0.attn.qkv.lora_A", "reduce_chan_level3.conv.weight"),
        options=_lora_restormer_options,
        settings={"lora_alpha": int},
        licence=f"{NO_LICENCE}; the Restormer repository allows academic use",
    ),
    Architecture(
        models=("retinexformer",),
        marks=("body.0.estimator.conv1.weight",),
        options=_retinexformer_options,
        licence=f"{NO_LICENCE}; the RetinexFormer repository itself carries the MIT licence",
    ),
    Architecture(
        models=("nafnet_local", "nafnet"),
        marks=("intro.weight", "ending.weight", "ups.0.0.weight"),
        options=_nafnet_options,
        model=_nafnet_model,
        licence=f"{NO_LICENCE}; the NAFNet repository itself carries the MIT licence",
    ),
    Architecture(
        models=("dehazeformer_l",),
        marks=("layer1.blocks.0.attn.conv.0.weight", "patch_unembed.proj.0.weight"),
        options=_dehazeformer_options,
        licence=f"{NO_LICENCE}; the DehazeFormer repository itself carries the MIT licence",
    ),
    Architecture(
        models=("ipt",),
        marks=("body.query_embed.weight", "body.position_encoding.pe.weight"),
        options=_ipt_options,
        stated=_stated_task,
        licence="unclear: treat as non-commercial until the authors of the weights (IPT) say otherwise",
    ),
    Architecture(
        models=("edt_sr4", "edt_sr2", "edt_sr3", "edt_denoise", "edt_derain"),
        marks=("body.patch_embed.norm.weight", "body.layers.0.residual_group.blocks.0.attns.0.lepe.weight"),
        options=_edt_options,
        model=_edt_model,
        stated=_stated_task,
        licence="unclear: treat as non-commercial until the authors of the weights (EDT) say otherwise",
    ),
    Architecture(
        models=("restormer",),
        marks=("encoder_level1.0.attn.temperature", "reduce_chan_level3.weight"),
        options=_restormer_options,
        licence="non-commercial: the Restormer repository allows academic use; ask its authors for anything else",
    ),
)
"""Families that are recognised; PromptIR before Restormer, whose names it also has."""
