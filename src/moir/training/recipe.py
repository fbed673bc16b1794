"""A training recipe: one YAML file per run, checked before anything starts.

A wrong key or value is refused with its place and the near miss. A recipe may start from another one in the same folder
(``extends: OTHER.yaml``) and say only what differs.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from moir.adapters import METHODS
from moir.base.names import TYPES, check_name
from moir.datasets import MIXTURES
from moir.degrade import ORDER, SEVERITIES, parse
from moir.degrade.severity import LEVELS
from moir.models import list_models

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Epochs = Annotated[float, Field(gt=0)]
Precision = Literal["auto", "no", "bf16", "fp16"]


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Adapter(Section):
    """An adapter that is trained in place of the network; see :mod:`moir.adapters`."""

    method: str = "adaptir"
    """How it adapts; a name of :data:`moir.adapters.METHODS`."""
    options: dict[str, Any] = {}
    """Options of the method."""

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        return check_name(method, METHODS, "adapter")


class Model(Section):
    """Which network, and where its weights start."""

    name: str
    """A name of the registry."""
    options: dict[str, Any] = {}
    """Options of the network."""
    start: str | None = None
    """Weights to start from: a .safetensors file, another program's checkpoint (.ckpt, .pth, .pt, .pkl), a shipped name
    or ``hf://owner/repo``. They must fit exactly; the optimiser starts anew. None: fresh weights."""
    train: list[str] = []
    """Which parameters are trained, as patterns of their names (``encoder1.*``); the others stay as they are. Empty:
    all of them."""
    adapter: Adapter | None = None
    """Train an adapter alone, on the weights of ``start``; it is saved as a file of its own."""
    teacher: str | None = None
    """Weights of a network whose results are learnt from, too (``loss.distil``); as ``start``, of any network."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return check_name(name, list_models(tests=True), "model")

    @model_validator(mode="after")
    def _adapted(self) -> Self:
        if self.adapter is not None and self.start is None:
            raise ValueError("adapter needs start: the weights that are adapted, and stay as they are")
        if self.adapter is not None and self.train:
            raise ValueError("adapter and train exclude each other: with an adapter, nothing else is trained")
        return self


class Damage(Section):
    """What is done to the clean pictures; see :class:`moir.degrade.Pipeline`."""

    clean: Share = 0.06
    single: Share = 0.6
    named: Share = 0.14
    gate: Share = 0.3
    stored: Share = 0.4
    types: dict[str, Weight] = dict.fromkeys(ORDER, 1.0)
    levels: dict[str, Weight] = {"light": 1.0, "medium": 1.0, "heavy": 1.0}

    @field_validator("types", "levels")
    @classmethod
    def _known(cls, weights: dict[str, float], info: Any) -> dict[str, float]:
        known: Sequence[str] = tuple(SEVERITIES) if info.field_name == "types" else LEVELS
        for name in weights:
            check_name(name, known, "degradation type" if info.field_name == "types" else "severity")
        if not sum(weights.values()) > 0:
            raise ValueError("the weights must not all be 0")
        return weights


class Curriculum(Section):
    """Mild damage first (Bengio et al. 2009): the weights of the degrees move from these to those of ``damage.levels``.

    They do so with the number of the sample, so that a resumed run goes on exactly.
    """

    levels: dict[str, Weight] = {"light": 1.0, "medium": 0.0, "heavy": 0.0}
    """Weights of the degrees at the first sample."""
    samples: Positive
    """Samples after which they are those of ``damage.levels``."""

    @field_validator("levels")
    @classmethod
    def _known(cls, weights: dict[str, float]) -> dict[str, float]:
        for name in weights:
            check_name(name, LEVELS, "severity")
        if not sum(weights.values()) > 0:
            raise ValueError("the weights must not all be 0")
        return weights


class Pairs(Section):
    """Two folders of the user's own: files of one name belong together."""

    input: str
    """Folder of damaged pictures; ``$NAME`` and ``~`` are expanded here and in every other path."""
    target: str
    """Folder of clean pictures."""
    types: list[str] = []
    """What is wrong with the inputs, for networks that estimate it; empty: not known."""

    @field_validator("types")
    @classmethod
    def _known(cls, types: list[str]) -> list[str]:
        return [check_name(name, TYPES, "degradation type") for name in types]


class Data(Section):
    """Where training samples come from (exactly one of the first three), and how they are cut."""

    folders: list[str] = []
    """Folders of clean pictures, searched recursively, damaged on the fly."""
    mixture: str | None = None
    """A training mixture of the papers, with its repeat factors (:data:`moir.datasets.MIXTURES`), below ``root``."""
    pairs: Pairs | None = None
    """Pairs of the user's own."""
    root: str | None = None
    """The folder below which the sets of the mixture lie; see docs/datasets.md."""
    patch: Annotated[int, Field(ge=16)] = 128
    """Side of a training patch, pixels (of the input, where targets are larger)."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that prepare samples."""
    smallest_scale: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Only with ``folders``: pictures are shrunk by a random factor down to this, never below the patch size."""
    shrunk: Share = 0.5
    """Only with ``folders``: share of patches from shrunk pictures, which show more of a scene."""
    scenes: Share = 0.0
    """Only with ``folders``: share of patches that show a picture nearly whole (three quarters of each side or more),
    pressed into the patch as into a thumbnail; of the others ``shrunk`` are from shrunk pictures."""
    instruct: Share = 0.1
    """Only with ``folders``: share of samples on which the network is told what to remove, and must leave the rest."""
    told: list[str] = []
    """Only with ``folders``: the types that those samples name; empty: drawn anew for each."""
    damage: Damage = Damage()
    """Only with ``folders``: what is done to the pictures."""
    curriculum: Curriculum | None = None
    """Only with ``folders``: mild damage first; None: all degrees from the start."""
    device_degradation: bool = False
    """Only with ``folders``: workers cut clean patches and draw the parameters of the damage; the device that trains
    applies them, a batch at a time. For GPUs, which workers may not keep busy."""

    @field_validator("mixture")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        return name if name is None else check_name(name, MIXTURES, "training mixture")

    @field_validator("told")
    @classmethod
    def _types(cls, types: list[str]) -> list[str]:
        return [check_name(name, TYPES, "degradation type") for name in types]

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("folders", "mixture", "pairs") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                "give exactly one of folders (clean pictures, damaged on the fly), mixture (with root) and pairs "
                f"(input and target); {' and '.join(given) or 'none'} given"
            )
        if self.mixture and not self.root:
            raise ValueError(f"the mixture {self.mixture!r} needs root, the folder below which its data sets lie")
        if self.root and not self.mixture:
            raise ValueError(f"root {self.root!r} is for a mixture; leave it out, or name the mixture")
        of_folders = (
            "smallest_scale",
            "shrunk",
            "scenes",
            "instruct",
            "told",
            "damage",
            "curriculum",
            "device_degradation",
        )
        for name in () if self.folders else of_folders:
            if getattr(self, name) != Data.model_fields[name].default:
                raise ValueError(f"{name} is for clean pictures (folders) and does nothing to pairs; leave it out")
        return self


class Loss(Section):
    """Weights of the loss terms; 0 leaves a term out."""

    l1: Weight = 1.0
    log_l1: Weight = 0.0
    charbonnier: Weight = 0.0
    fft: Weight = 0.0
    distil: Weight = 0.0
    """L1 to what ``model.teacher`` makes of the same input (knowledge distillation; Hinton et al. 2015)."""
    presence: Weight = 0.05
    degree: Weight = 0.02
    balance: Weight = 0.01


class Optimiser(Section):
    """AdamW or Muon, and the schedule."""

    name: Literal["adamw", "muon"] = "adamw"
    """muon: orthogonalised momentum for convolutions, AdamW for the rest; see :mod:`moir.training.optimisers`."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Only of muon's convolutions."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    final_rate: Annotated[float, Field(ge=0)] = 1e-6
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: Weight = 1e-4
    clip: Weight = 1.0
    """Largest norm of the gradient; 0: not clipped."""
    warmup: Annotated[int, Field(ge=0)] | None = None
    """Steps in which the rate rises; None: ``warmup_epochs``, or 200 steps."""
    warmup_epochs: Weight | None = None
    """The same in epochs, with ``epochs``."""
    schedule: Literal["cosine", "hold", "multistep"] = "cosine"
    """cosine: falls from warm-up to the end. hold: constant, and falls linearly over the last ``decay`` share of the
    steps, so that a run can be made longer, or ended at any time, without having planned it. multistep: constant, and
    multiplied by ``gamma`` at each of ``milestones``."""
    milestones: list[Epochs] = []
    """Only with multistep: when the rate falls, in epochs (in a recipe that counts steps: in steps), ascending."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Only with multistep: the factor."""
    schedule_epochs: Epochs | None = None
    """The epoch, counted from the start, at which the cosine reaches ``final_rate``; None: the last one. MoCE-IR stops
    after 120 epochs of a cosine that is laid out for 150."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of all steps over which ``hold`` falls."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the exponential moving average of the weights, which is what is saved and validated."""

    @model_validator(mode="after")
    def _milestones(self) -> Self:
        if (self.schedule == "multistep") != bool(self.milestones):
            raise ValueError("the schedule 'multistep' and milestones go together; give both or neither")
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError(f"milestones {self.milestones} must ascend")
        return self


class Speed(Section):
    """Ways to do the same in less time or memory; see docs/training.md.

    Results change by rounding, or not at all; but a run must go on as it began, so they are off unless asked for.
    """

    faster_forms: bool = False
    """Layers in forms that train faster (:mod:`moir.training.faster`)."""
    fused_optimiser: bool = False
    """PyTorch's fused AdamW, which updates all parameters in one pass."""
    recompute: bool = False
    """Gradient checkpointing: only the inputs of blocks are kept, and what is inside is computed again on the way back.
    Less memory, for about one more forward pass."""
    compile: bool = False
    """torch.compile, for GPUs."""


class State(Section):
    """How the state of a run is kept, from which it goes on."""

    exact: bool = True
    """Everything, so that a run that was stopped ends exactly as one that was not. False: the moving average and the
    optimiser's moments alone, in bf16: about a third of the size (AdamW: three eighths); a run goes on from the
    average."""
    megabytes: Annotated[float, Field(gt=0)] | None = None
    """In files of at most so many megabytes (10^6 bytes), for hosts that take no larger ones. None: in one."""


class Validation(Section):
    """Pictures that are never trained on, the same every time: clean ones with damage, or benchmarks, or both."""

    folders: list[str] = []
    """Folders of clean pictures, damaged with ``damages``; none: no validation on damage made here."""
    benchmarks: list[str] = []
    """Benchmarks, or groups of them (``aio3``), below ``root``."""
    root: str | None = None
    """Where the benchmarks lie; None: ``data.root``."""
    limit: Positive = 8
    """How many pictures of each damage or benchmark."""
    crop: Positive = 256
    """Side of the centre crop, pixels (of the input, where targets are larger)."""
    damages: list[str] = ["clean", "noise=25", "rain=medium", "haze=medium", "snow=medium", "blur=medium",
                          "lowlight=medium", "jpeg=20", "H-N-R=medium"]  # fmt: skip
    every: Positive = 500

    @field_validator("damages")
    @classmethod
    def _readable(cls, damages: list[str]) -> list[str]:
        for spec in damages:
            if spec != "clean":
                parse(spec)
        return damages


class Recipe(Section):
    """One training run."""

    name: str
    model: Model
    data: Data
    steps: Positive | None = None
    """Length of the run; or ``epochs``."""
    epochs: Epochs | None = None
    """Length of the run in passes over a mixture or pairs; fractions are allowed."""
    batch: Positive = 16
    """Samples per step and process."""
    accumulate: Positive = 1
    """Batches whose gradients are summed before a step."""
    precision: Precision = "auto"
    """no: float32. bf16 and fp16: mixed. auto: bf16 where the processor has instructions for it, else float32."""
    seed: int = 0
    loss: Loss = Loss()
    optimiser: Optimiser = Optimiser()
    speed: Speed = Speed()
    validation: Validation = Validation()
    state: State = State()
    save_every: Positive = 500
    log_every: Positive = 20

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        settings = self.optimiser
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"give steps or epochs, {'not both' if self.steps else 'one of them is needed'}")
        if self.epochs is None:
            for name in ("warmup_epochs", "schedule_epochs"):
                if getattr(settings, name) is not None:
                    raise ValueError(f"optimiser.{name} goes with epochs, but this recipe counts steps")
            return self
        if self.data.folders:
            raise ValueError(
                "pictures that are damaged on the fly (data.folders) are an endless stream without epochs; use steps"
            )
        if settings.warmup is not None and settings.warmup_epochs is not None:
            raise ValueError("give optimiser.warmup (steps) or optimiser.warmup_epochs, not both")
        if settings.warmup_epochs is not None and settings.warmup_epochs > self.epochs:
            raise ValueError(
                f"optimiser.warmup_epochs is {settings.warmup_epochs:g}, longer than the run of {self.epochs:g} epochs"
            )
        if settings.schedule_epochs is not None:
            if settings.schedule != "cosine":
                raise ValueError("optimiser.schedule_epochs is for the schedule 'cosine'; leave it out")
            if settings.schedule_epochs < self.epochs:
                raise ValueError(
                    f"optimiser.schedule_epochs is {settings.schedule_epochs:g}, but the run has {self.epochs:g} "
                    "epochs: the rest would train at the final rate; raise it, or leave it out to end with the run"
                )
        return self

    @model_validator(mode="after")
    def _taught(self) -> Self:
        if (self.loss.distil > 0) != (self.model.teacher is not None):
            raise ValueError("loss.distil and model.teacher go together; give both or neither")
        return self

    @model_validator(mode="after")
    def _fused(self) -> Self:
        if self.speed.fused_optimiser and self.optimiser.name != "adamw":
            raise ValueError(
                f"speed.fused_optimiser is for adamw, but optimiser.name is {self.optimiser.name!r}; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _root_of_benchmarks(self) -> Self:
        if self.validation.benchmarks and not (self.validation.root or self.data.root):
            raise ValueError("validation.benchmarks needs validation.root, the folder below which they lie")
        return self
