"""Our networks in spandrel's registry (extra ``peers``), for every program that loads its models through spandrel.

ComfyUI and chaiNNer do. After :func:`install`, ``spandrel.ModelLoader().load_from_file("compact.safetensors")`` gives a
descriptor that restores as moir does: one analysis of the picture it is given, shared by its tiles.

Networks that spandrel, or its package of architectures with other licences, already knows (Restormer, NAFNet,
RetinexFormer, IPT) are left to them. LoRA-Restormer is left out: its files do not say how much their low-rank part
counts (``lora_alpha``), and spandrel reads options from shapes alone.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from moir.base.errors import MissingExtraError
from moir.checkpoints import Card
from moir.checkpoints.architectures import ARCHITECTURES, Shapes, detect
from moir.models import WEIGHTS, create_model, shipped
from moir.networks.base import RestorationNetwork
from moir.runtime import Engine


@dataclass(frozen=True)
class Family:
    """One architecture of ours in spandrel's registry.

    Attributes:
        id: Its name there, unique; other projects' names cannot clash with it.
        marks: Names that every state dict of the family has, and no other.
        read: Shapes to the name in moir's registry and the options.
        before: Architectures of others whose state dicts look like ours, so that we must be asked first.
    """

    id: str
    marks: Sequence[str]
    read: Callable[[Shapes], tuple[str, dict[str, Any]]]
    before: Sequence[str] = ()

    def detects(self, state: Mapping[str, Any]) -> bool:
        """Whether a state dict is of this family."""
        return all(mark in state for mark in self.marks)

    def build(self, state: Mapping[str, torch.Tensor]) -> RestorationNetwork:
        """The network that a state dict belongs to, with fresh weights, in evaluation mode.

        Args:
            state: Names to tensors.
        """
        model, options = self.read({name: tuple(tensor.shape) for name, tensor in state.items()})
        return create_model(model, **options).eval()


def install(registry: Any = None) -> list[str]:
    """Add our architectures to spandrel's registry. Calling it again changes nothing.

    Args:
        registry: An ``ArchRegistry``; None: spandrel's main one, which every ``ModelLoader()`` uses.

    Returns:
        The ids that were added.

    Raises:
        MissingExtraError: spandrel is not installed, or its torchvision does not fit the torch that is.
    """
    spandrel = import_spandrel()
    supports = [
        spandrel.ArchSupport.from_architecture(_architecture(spandrel, family), before=tuple(family.before))
        for family in FAMILIES
    ]
    chosen = spandrel.MAIN_REGISTRY if registry is None else registry
    return [str(added.architecture.id) for added in chosen.add(*supports, ignore_duplicates=True)]


def import_spandrel() -> Any:
    """The module spandrel.

    Raises:
        MissingExtraError: It is not installed, or its torchvision does not fit the torch that is.
    """
    try:
        return importlib.import_module("spandrel")
    except ImportError as error:
        raise MissingExtraError("networks of other projects need spandrel: pip install 'moir[peers]'") from error
    except RuntimeError as error:  # torchvision says so when it was built for another torch
        raise MissingExtraError(
            f"spandrel is installed but cannot be imported ({str(error).splitlines()[0]}); it needs the torchvision "
            "that was built for the installed torch: install both from one index"
        ) from error


def restore(network: RestorationNetwork, image: torch.Tensor) -> torch.Tensor:
    """Restore as :class:`moir.Restorer` does: analysed once, then in tiles that free memory allows.

    Args:
        network: The network, float32.
        image: (B, 3, H, W), float32, [0, 1], on the network's device.

    Returns:
        (B, 3, H, W), float32, [0, 1], on the same device.
    """
    # The network as it is: a twin would copy its weights at every call.
    engine = Engine(network, str(image.device), "float32", bytes_per_pixel=_bytes_per_pixel(network), engine="plain")
    return engine.restore(image).pictures.to(image.device)


def _architecture(spandrel: Any, family: Family) -> Any:
    """An instance of a subclass of spandrel's Architecture; made here, so that spandrel is needed only when used."""

    class MoirArchitecture(spandrel.Architecture):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            super().__init__(id=family.id, detect=family.detects)

        def load(self, state_dict: Mapping[str, torch.Tensor]) -> Any:
            network = family.build(state_dict)
            return spandrel.ImageModelDescriptor(
                network,
                dict(state_dict),
                architecture=self,
                purpose="Restoration",
                tags=[f"{sum(p.numel() for p in network.parameters()) / 1e6:.1f}M"],
                # Estimates and routes must stay float32, so weights must not be cast; moir computes in half precision
                # through autocast instead.
                supports_half=False,
                supports_bfloat16=False,
                scale=1,
                input_channels=3,
                output_channels=3,
                # None: networks pad by themselves, and padding first would change what the analysis sees.
                size_requirements=spandrel.SizeRequirements(),
                # Tiles must share one decision, which only the caller of the whole picture can make.
                tiling=spandrel.ModelTiling.INTERNAL,
                call_fn=restore,
            )

    return MoirArchitecture()


def _bytes_per_pixel(network: RestorationNetwork) -> float | None:
    """Memory per pixel as measured for shipped weights of the same network; None: not measured."""
    parameters = sum(p.numel() for p in network.parameters())
    for card in (Card.read(WEIGHTS / f"{name}.json") for name in shipped()):
        if card.parameters == parameters:
            return card.bytes_per_pixel
    return None


def _read_compact(shapes: Shapes) -> tuple[str, dict[str, Any]]:
    def count(prefix: str) -> int:
        return 1 + max((int(name.split(".")[1]) for name in shapes if name.startswith(prefix + ".")), default=-1)

    return "compact", {
        "width": shapes["stem.weight"][0],
        "encoder_blocks": (count("encoder1"), count("encoder2")),
        "middle_blocks": count("middle"),
        "decoder_blocks": (count("decoder2"), count("decoder1")),  # in the order they run
        "embedding": shapes["estimator.presence.weight"][1],
        "estimator_width": shapes["estimator.detail.1.weight"][0],
    }


def _read_known(shapes: Shapes) -> tuple[str, dict[str, Any]]:
    found = detect(shapes)
    return found.model, found.options


def _known(id: str, model: str, before: Sequence[str] = ()) -> Family:
    """A family that :mod:`moir.checkpoints.architectures` recognises."""
    marks = next(row.marks for row in ARCHITECTURES if model in row.models)
    return Family(id, marks, _read_known, before)


FAMILIES: tuple[Family, ...] = (
    Family(
        "moir-Compact", ("estimator.presence.weight", "estimator.degree.weight", "middle.0.film.weight"), _read_compact
    ),
    _known("moir-MoCE-IR", "moce_ir_s"),
    _known("moir-PromptIR", "promptir", before=("Restormer",)),  # has all of Restormer's names
    _known("moir-DehazeFormer", "dehazeformer_l"),
)
"""What :func:`install` adds."""
