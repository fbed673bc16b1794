"""The recipe of the shipped form of UniRestorer: one file, four stages, each a section."""

import time
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from moir.base.errors import DeviceError
from moir.training.recipe import Damage, Data, Optimiser, Positive, Section, Share, Validation, Weight
from moir.training.schedule import WARMUP, Schedule

Steps = Annotated[int, Field(ge=0)]

Report = Callable[[int, int, dict[str, float]], None]
"""Takes steps done, all steps, and the terms of the loss."""

STAGES = ("extractor", "cluster", "experts", "router")


class ExtractorStage(Section):
    """Stage 1: the extractor is trained; see :class:`moir.universal.compact_extractor.CompactExtractor`."""

    features: Positive = 128
    """Length of a degradation representation."""
    width: Positive = 32
    """Channels of the first convolution."""
    fresh: bool = False
    """Whether it starts with fresh weights; otherwise as the shared network's own estimator, which has seen more."""
    sizes: dict[int, Weight] = Field(default={96: 0.35, 160: 0.35, 256: 0.3})
    """Sides of the pictures that are damaged and looked at, pixels, with their shares."""
    steps: Positive = 600
    batch: Positive = 64
    precision: Literal["auto", "no", "bf16"] = "auto"
    contrast: Weight = 0.5
    """Weight of the contrastive loss (equation 3)."""
    presence: Weight = 1.0
    """Weight of the binary cross-entropy of the types."""
    degree: Weight = 0.3
    """Weight of the cross-entropy of the degrees."""
    optimiser: Optimiser = Optimiser(name="muon", learning_rate=1e-3, warmup=40, schedule="hold", decay=0.5, ema=0.99)


class ClusterStage(Section):
    """Stage 2: representations are clustered into the tree; see :mod:`moir.universal.clustering`."""

    samples: Positive = 6000
    """Damaged pictures to represent."""
    groups: list[Positive] = Field(default=[8, 18])
    """Groups per level below ``all``, the coarsest first."""


OWN = "own"
"""What an expert that is a part of itself is called there."""


class ExpertPart(Section):
    """A part of an expert that is made of others; see :class:`moir.universal.composed_expert.Part`."""

    expert: str | None = None
    """By name and level: ``noise (type)``; ``all (all)`` is the shared network, ``own`` the expert itself, which is
    trained, then. None: ``parts``, or the grid."""
    parts: list[list["ExpertPart"]] = Field(default=[])
    """Steps of parts, as one part."""
    certainty: dict[str, tuple[Share, Share]] = Field(default={})
    """Only with ``parts``; as in :class:`ExpertSettings`."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """What it counts in the mean of its step."""
    told: list[str] = Field(default=[])
    """What it is told to remove; empty: what was found. The grid must be told."""
    sure: Share = 0.0
    """It removes only what is there with at least this probability, and does nothing where nothing is."""
    flatten: Weight = 0.0
    """Not with ``parts``: what varies by less than so many levels of 255 is taken out first."""

    @property
    def has_own(self) -> bool:
        """Whether it is the expert itself, or that is among its parts."""
        return self.expert == OWN or any(part.has_own for step in self.parts for part in step)


class ExpertSettings(Section):
    """What is different for one expert."""

    parts: list[list[ExpertPart]] = Field(default=[])
    """It is made of others, one step after the other, and not trained unless it is a part itself; what the parts of one
    step make is averaged."""
    certainty: dict[str, tuple[Share, Share]] = Field(default={})
    """Only with ``parts``: how far the picture is changed, by how probable each of these types is: not at all up to the
    first probability, wholly from the second on."""

    steps: Steps | None = None
    """None: as its level says."""
    form: dict[str, list[Positive]] | None = None
    """More blocks than the shared network has, also for the experts below: options such as ``decoder_blocks``. None: as
    the expert above. See :func:`moir.universal.expert_form.with_form`."""
    patch: Positive | None = None
    """Side of the patches, pixels; the batch is made smaller or larger, so that it has as many pixels. An expert of
    haze needs to see more of a scene. None: as for all."""
    stored: Share | None = None
    """Share of pictures that a JPEG file was made of after all; None: as ``data.damage`` says."""
    smallest_scale: Share | None = None
    """None: as ``data`` says."""
    scenes: Share | None = None
    """None: as ``data`` says."""

    @property
    def has_own(self) -> bool:
        """Whether it is a part of itself, besides others."""
        return any(part.has_own for step in self.parts for part in step)


class ExpertsStage(Section):
    """Stage 3: every group gets an expert: the shared network with some parameters of its own."""

    train: list[str] = Field(default=["stem.*", "encoder1.*", "up1.*", "down1.*", "decoder1.*", "head.*", "*.film.*"])
    """Which parameters an expert has of its own, as patterns of their names."""
    steps: dict[str, Steps] = Field(default={"type": 300, "degree": 80})
    """Steps for each level below ``all``, by the level's name. An expert of 0 steps is the same as its parent."""
    each: dict[str, ExpertSettings] = Field(default={})
    """What is different for some experts, by name and level: ``noise (type)``."""
    combined: list[list[ExpertPart]] = Field(default=[])
    """Steps, as in ``parts``, that remove what the user said where no leaf is for just that, and in auto mode what is
    certain where there are several types and no leaf for them. Empty: the shared network does."""
    batch: Positive = 48
    patch: Positive = 64
    precision: Literal["auto", "no", "bf16"] = "auto"
    optimiser: Optimiser = Optimiser(name="muon", learning_rate=0.9e-3, warmup=20, schedule="hold", decay=0.5, ema=0.99)


class RouterStage(Section):
    """Stage 4: the router learns which leaf, and how fine (equations 7 to 9)."""

    samples: Positive = 4000
    """Damaged pictures; every expert restores each of them once, so that the router's epochs cost little."""
    size: Positive = 256
    """Side of these pictures, pixels."""
    crop: Positive = 64
    """Side of the part that the experts restore, pixels."""
    epochs: Positive = 40
    batch: Positive = 256
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Of AdamW; falls linearly to nothing."""
    weight_decay: Weight = 0.01
    jitter: Weight = 0.5
    """Standard deviation of noise on the representations, whose features have a root mean square of 1."""
    leaf: Weight = 1.0
    """Weight of the cross-entropy of the finest group."""
    level: Weight = 1.0
    """Weight of the cross-entropy of the level that restores best."""
    regret: Weight = 0.3
    """Weight of the expected loss of PSNR against the best level, dB."""
    choice: Weight = 1.0
    """Weight of the expected loss of PSNR against the best of all experts, dB: leaf and level are learnt together from
    what the experts make of a picture, not only from where it came from."""
    uncertainty: Weight = 0.1
    """Weight of equation 7. The paper's is not known."""
    sure: dict[str, Share] = Field(default={})
    """Least calibrated probability of a type at which an expert told to remove it is let loose; see
    :class:`moir.universal.agreement.Agreement`."""
    sure_mixed: dict[str, Share] = Field(default={})
    """The same for experts of mixes with the type."""
    believed: Share | None = None
    """Calibrated probability of any type from which a picture is not taken for sound."""
    alone: Share | None = None
    """Calibrated probability of any other type from which an expert of one type does not restore."""
    finest: list[str] = Field(default=[])
    """Types whose leaves, alone or with others, the finest expert restores, where the coarsest does not."""
    certain: dict[str, Share] = Field(default={})
    """Least calibrated probability at which a type counts, where several are removed by ``experts.combined``."""
    reconstruction: Weight = 0.0
    """Weight of the L1 error through the gate (equation 9), as published: 1."""
    balance: Weight = 0.0
    """Weight of equation 8, as published: 0.01."""


class OnCleanPictures(Section):
    """What is trained here on clean pictures that are damaged on the fly."""

    name: str
    data: Data
    """Clean pictures, damaged on the fly; ``patch`` is set by each stage."""
    seed: int = 0
    log_every: Positive = 20

    @field_validator("data")
    @classmethod
    def _clean_pictures(cls, data: Data) -> Data:
        if not data.folders:
            raise ValueError("trees and their routers learn from clean pictures that are damaged: give data.folders")
        return data

    def run(
        self, folder: str | Path, *, device: str | None = None, on_step: Callable[[Any], None] | None = None
    ) -> Path:
        """Train; see :func:`moir.training.tree.stages.train_tree` and :func:`moir.training.tree.rejoin.train_join`.

        Args:
            folder: Where everything is written.
            device: The CPU, or None.
            on_step: Called with a :class:`moir.training.loop.Progress` now and then.

        Returns:
            The weights.

        Raises:
            DeviceError: Another device than the CPU is asked for.
            OutputExistsError: Another run is at work in the folder.
        """
        if device not in (None, "cpu"):
            raise DeviceError(
                f"trees and their routers train on the CPU for now, not on {device!r}; leave the device out"
            )
        from moir.training.state import alone_in

        with alone_in(folder):
            return self._train(folder, _reporter(on_step))

    @abstractmethod
    def _train(self, folder: str | Path, report: Report) -> Path:
        """Train, without a look at the device."""


class TreeRecipe(OnCleanPictures):
    """One training of extractor, tree, experts and router for a shared network."""

    base: str = "compact"
    """Weights of the shared network, which stays as it is: it is the coarsest expert."""
    scene: str | None = None
    """Weights of a bilateral grid that experts may be made of (``recipes/bilateral_grid.yaml``); it stays as it is."""
    stage: Literal["extractor", "cluster", "experts", "router", "all"] = "all"
    """Which stage to run; ``all``: one after the other."""
    extractor: ExtractorStage = ExtractorStage()
    cluster: ClusterStage = ClusterStage()
    experts: ExpertsStage = ExpertsStage()
    router: RouterStage = RouterStage()
    held_out: Validation = Validation()
    """Pictures that are never trained on: the estimate is calibrated and the figures are drawn with them."""
    save_every: Positive = 100

    @field_validator("data")
    @classmethod
    def _some_damage(cls, data: Data) -> Data:
        if data.damage.clean == 1:
            raise ValueError("data.damage.clean is 1, so that nothing is damaged, and a tree has nothing to tell apart")
        return data

    def _train(self, folder: str | Path, report: Report) -> Path:
        from moir.training.tree.stages import train_tree

        return train_tree(self, folder, lambda _, *step: report(*step))

    def damage(self) -> Damage:
        """What is done to the pictures."""
        return self.data.damage


def _reporter(on_step: Callable[[Any], None] | None) -> Report:
    """What takes steps done, all steps and the terms of the loss, and tells the caller of a run, with the time."""
    from moir.training.loop import Progress

    began = time.monotonic()

    def report(step: int, steps: int, losses: dict[str, float]) -> None:
        if on_step is not None:
            on_step(Progress(step, steps, losses, time.monotonic() - began))

    return report


def schedule_of_stage(stage: ExtractorStage) -> Schedule:
    """The lengths of a stage, in steps."""
    warmup = stage.optimiser.warmup
    return Schedule(stage.steps, WARMUP if warmup is None else warmup, stage.steps)
