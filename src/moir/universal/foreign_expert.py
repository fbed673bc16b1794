"""A network of another project, as far as spandrel knows it (extra ``peers``), as an expert."""

import importlib
from collections.abc import Mapping
from typing import Any

import torch

from moir.base.errors import CheckpointError
from moir.networks.base import Context, RestorationNetwork, check_pictures

SPANDREL = "spandrel"
"""What a pool's file gives as the model of such an expert."""


class SpandrelExpert(RestorationNetwork):
    """Runs a network that spandrel describes. It pads by itself to the sizes that its network needs.

    Args:
        descriptor: spandrel's ``ImageModelDescriptor``, from colour to colour, of scale 1.
    """

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.descriptor = descriptor
        self.network = descriptor.model

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        """See :meth:`moir.networks.base.RestorationNetwork.forward`; the result is clamped to [0, 1]."""
        check_pictures(x)
        # One by one: a batch must give exactly what its pictures give. The copy leaves spandrel's inference mode.
        return torch.cat([self.descriptor(picture[None]) for picture in x]).clone()


def spandrel_expert(tensors: Mapping[str, torch.Tensor], source: str) -> SpandrelExpert:
    """Make an expert of a state dict that spandrel knows.

    Args:
        tensors: The state dict.
        source: What messages call it.

    Raises:
        MissingExtraError: spandrel is not installed, or its torchvision does not fit the torch that is.
        CheckpointError: spandrel does not know it, or it does not map colour pictures to colour pictures of their size.
    """
    # By name: plugins stand above this floor, and are needed by few.
    spandrel = importlib.import_module("moir.plugins.spandrel").import_spandrel()
    descriptor = None
    # Some architectures have names that begin with what looks like the prefix of a training program.
    for prefix in ("", "model."):
        state = {prefix + name: tensor.clone() for name, tensor in tensors.items()}
        try:
            descriptor = spandrel.ModelLoader("cpu").load_from_state_dict(spandrel.canonicalize_state_dict(state))
            break
        except spandrel.UnsupportedModelError:
            continue
        except (RuntimeError, KeyError, AssertionError, ValueError) as error:
            raise CheckpointError(
                f"{source} looks like a network that spandrel knows, but does not fit it: {error}"
            ) from error
    if descriptor is None:
        raise CheckpointError(
            f"{source} is of no architecture that moir or spandrel {spandrel.__version__} knows; a network of your own "
            "joins in Python: join(..., builders={NAME: YOUR_CLASS})"
        )
    channels, scale = (descriptor.input_channels, descriptor.output_channels), descriptor.scale
    if channels != (3, 3) or scale != 1 or descriptor.purpose == "Inpainting":
        raise CheckpointError(
            f"{source} maps {channels[0]} channels to {channels[1]}, {scale} times larger, for "
            f"{descriptor.purpose}; an expert maps colour pictures to colour pictures of their size"
        )
    return SpandrelExpert(descriptor.eval().float())
