"""The recipes of UniRestorer's own training (arXiv 2412.20157): ``kind: daclip`` and ``kind: unirestorer``.

Where the paper's numbers are not published, the defaults are ours, and say so.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from moir.base.names import TYPES, check_name
from moir.degrade import parse
from moir.training.recipe import Damage, Loss, Model, Optimiser, Positive, Precision, Section, Weight

Rate = Annotated[float, Field(gt=0)]


class Damaged(Section):
    """Clean pictures that are damaged on the fly, either by a list of settings or by gates."""

    folders: list[str] = Field(default=[])
    """Folders of clean pictures, searched recursively."""
    settings: list[str] = Field(default=[])
    """What is done to a picture, one of these each time, as ``moir degrade --with`` reads it: ``rain=heavy``."""
    damage: Damage | None = None
    """Or: types that are let through gates of their own, one after the other; see :class:`moir.degrade.Pipeline`."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that prepare samples."""

    @field_validator("settings")
    @classmethod
    def _readable(cls, settings: list[str]) -> list[str]:
        for spec in settings:
            if spec != "clean":
                parse(spec)
        return settings

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.folders and bool(self.settings) == (self.damage is not None):
            raise ValueError("give settings (a list) or damage (gates), one of the two")
        return self


class Table(Section):
    """Pictures that are damaged already, with their texts: tab separated, with a header line."""

    file: str
    """The table; ``$NAME`` and ``~`` are expanded here and in every other path."""
    root: str | None = None
    """The folder that its paths are relative to; None: that of the table."""
    picture: str = "filepath"
    """Column of the paths."""
    text: str = "title"
    """Column of the whole text: caption and degradation."""


class Clip(Section):
    """The pre-trained CLIP: its text tower stays as it is, its vision tower is where the controller starts."""

    weights: str
    """CLIP in OpenCLIP's names (the paper: ViT-B/32, laion2b_s34b_b79k), or a whole DA-CLIP to go on from."""
    vocabulary: str
    """``bpe_simple_vocab_16e6.txt.gz``, which comes with CLIP."""


class ControllerRecipe(Section):
    """Training of the degradation extractor: the image controller of DA-CLIP (equation 3)."""

    name: str
    clip: Clip
    table: Table | None = None
    """Damaged pictures with texts, as published; or ``data``."""
    data: Damaged = Damaged()
    """Clean pictures, damaged on the fly."""
    captions: Table | None = None
    """Only with ``data``: captions of the clean pictures, by path below one of the folders."""
    steps: Positive
    batch: Positive = 784
    learning_rate: Rate = 2e-5
    weight_decay: Weight = 0.05
    """Not of biases, norms and the logit scale."""
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: Rate = 1e-6
    warmup: Annotated[int, Field(ge=0)] = 100
    """Steps; then a cosine to 0."""
    precision: Literal["auto", "no", "bf16"] = "auto"
    seed: int = 0
    save_every: Positive = 500
    log_every: Positive = 20

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.table is None) == (not self.data.folders):
            raise ValueError("give table (damaged pictures with texts) or data.folders (clean ones), one of the two")
        if self.captions and self.table:
            raise ValueError("captions are for data.folders; a table has its texts itself")
        return self

    def run(
        self, folder: str | Path, *, device: str | None = None, on_step: Callable[[Any], None] | None = None
    ) -> Path:
        """Train; see :func:`moir.training.universal.controller.train_controller`."""
        from moir.training.state import alone_in
        from moir.training.universal.controller import train_controller

        with alone_in(folder):
            return train_controller(self, folder, device=device, on_step=on_step)


class Extractor(Section):
    """The trained extractor, frozen from here on."""

    weights: str | None = None
    """What ``moir train recipes/daclip_controller.yaml`` wrote, a published ``daclip.pt``, or a whole UniRestorer."""
    options: dict[str, Any] = Field(default={})
    """Without weights: options of a fresh one, for trying things out. See :class:`moir.universal.daclip.DaClip`."""
    batch: Positive = 64
    """Pictures that are represented at a time."""


class Cluster(Section):
    """Representations and their groups."""

    samples: Positive = 8000
    """Damaged pictures that are represented. The paper's number is not published."""
    patch: Positive = 256
    """Side of these pictures, pixels; the extractor resizes them to its own."""
    groups: list[Positive] = Field(default=[7, 19])
    """Groups per level below ``all``, the coarsest first."""


class Experts(Section):
    """A network for every group, each trained on its group's damage alone."""

    model: Model = Model(name="restormer")
    """Any network of the registry."""
    types: dict[str, Model] = Field(default={})
    """Other networks for groups of one type: the paper takes RetinexFormer for low light."""
    steps: Positive = 300_000
    batch: Positive = 8
    patch: Positive = 128
    precision: Precision = "no"
    loss: Loss = Loss(presence=0, degree=0)
    optimiser: Optimiser = Optimiser(
        learning_rate=3e-4, final_rate=1e-6, betas=(0.9, 0.999), weight_decay=1e-4, warmup=0, ema=0
    )
    """AdamW and a cosine, as in the paper; the rates are Restormer's, since the paper's are not published."""

    @field_validator("types")
    @classmethod
    def _known(cls, types: dict[str, Model]) -> dict[str, Model]:
        for name in types:
            check_name(name, TYPES, "degradation type")
        return types


class RouterStage(Section):
    """The router; experts and extractor are frozen."""

    steps: Positive = 20_000
    batch: Annotated[int, Field(ge=2)] = 8
    patch: Positive = 256
    learning_rate: Rate = 1e-4
    """Constant, of Adam. The paper's is not published."""
    uncertainty: Weight = 1.0
    """Weight of equation 7. The paper's is not published."""
    resident: Positive = 27
    """Experts that are kept in memory."""
    held_out: Positive = 400
    """Samples of the final account: confusion, usage, granularity."""


class UniRestorerRecipe(Section):
    """The published training in four stages, each of which goes on where it was stopped."""

    name: str
    stage: Literal["representations", "cluster", "experts", "router", "all"] = "all"
    """Which stage to run; ``all``: one after the other."""
    expert: Annotated[int, Field(ge=0)] | None = None
    """Only this expert in the stage ``experts``, so that several machines share the work on one folder."""
    start: str | None = None
    """Only in the stage ``router``: a pool whose router is trained again, such as ``moir expert add`` writes."""
    data: Damaged
    extractor: Extractor = Extractor()
    cluster: Cluster = Cluster()
    experts: Experts = Experts()
    router: RouterStage = RouterStage()
    seed: int = 0
    save_every: Positive = 2000
    log_every: Positive = 20

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.data.folders:
            raise ValueError("data.folders: give folders of clean pictures")
        if self.start is not None and self.stage != "router":
            raise ValueError(f"start is for the stage 'router', not {self.stage!r}; add --set stage=router")
        if self.expert is not None and self.stage != "experts":
            raise ValueError(f"expert is for the stage 'experts', not {self.stage!r}; add --set stage=experts")
        if self.start is None and not (self.extractor.weights or self.extractor.options):
            raise ValueError(
                "extractor.weights: give a trained extractor; moir train recipes/daclip_controller.yaml makes one"
            )
        return self

    def run(
        self, folder: str | Path, *, device: str | None = None, on_step: Callable[[Any], None] | None = None
    ) -> Path:
        """Run the stage, or all of them; see :func:`moir.training.universal.stages.run_stages`."""
        from moir.training.state import alone_in
        from moir.training.universal.stages import run_stages

        with alone_in(folder) if self.expert is None else nullcontext():  # experts have folders of their own
            return run_stages(self, folder, device=device, on_step=on_step)
