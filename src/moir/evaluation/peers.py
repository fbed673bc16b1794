"""Networks of other projects, as far as spandrel knows them (extra ``peers``), beside ours in one table."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from moir.base.errors import CheckpointError, TensorShapeError
from moir.checkpoints import read_foreign
from moir.evaluation.cost import count_macs, measure_cost
from moir.evaluation.records import Cost
from moir.plugins.spandrel import import_spandrel
from moir.runtime.device import choose_device


class Peer:
    """A network that spandrel describes, as a :class:`moir.evaluation.methods.Method`. Made by :func:`peer`.

    It runs in float32 on whole pictures: spandrel cuts no tiles, so a large picture may not fit into memory. Networks
    for one channel are run on red, green and blue one by one. A network that enlarges is scored at its own scale where
    the setting has this scale; anywhere else its result is shrunk to the size of the target (bicubic, antialiased), and
    its name says so.

    Args:
        descriptor: spandrel's ``ImageModelDescriptor``: callable on (1, C, H, W); pads by itself to the
            ``size_requirements`` of its network.
        name: Name in tables.
        files: The file it was read from, for the record.

    Raises:
        CheckpointError: A network that does not map colour pictures to colour pictures.
    """

    def __init__(self, descriptor: Any, name: str, files: tuple[Path, ...] = ()) -> None:
        channels = (descriptor.input_channels, descriptor.output_channels)
        if channels not in ((3, 3), (1, 1)) or descriptor.purpose == "Inpainting":
            raise CheckpointError(
                f"{name} is a network for {descriptor.purpose} that maps {channels[0]} channels to {channels[1]}; "
                "only networks from colour to colour, or grey to grey, can be scored"
            )
        self.descriptor = descriptor
        self.grey = channels == (1, 1)
        self.name = name if descriptor.scale == 1 else f"{name} (x{descriptor.scale}, shrunk unless the setting is)"
        self.files = files

    def restore(self, x: torch.Tensor, *, setting: object | None = None) -> torch.Tensor:
        """Restore one picture.

        Args:
            x: (3, H, W), float32, [0, 1].
            setting: Only its ``scale`` is looked at.

        Returns:
            (3, sH, sW), float32, [0, 1], on the CPU; s is the setting's scale.

        Raises:
            TensorShapeError: ``x`` is something else, or the setting asks for a larger picture than the network makes.
        """
        if x.dim() != 3 or x.shape[0] != 3 or x.dtype != torch.float32:
            raise TensorShapeError(f"expected float32 (3, H, W) in [0, 1], got {x.dtype} {tuple(x.shape)}")
        wanted = int(getattr(setting, "scale", 1))
        if wanted > self.descriptor.scale:
            raise TensorShapeError(f"{self.name} enlarges {self.descriptor.scale} times; the setting asks for {wanted}")
        planes = x[:, None] if self.grey else x[None]  # one picture, or its three channels as three grey ones
        with torch.inference_mode():
            done = torch.cat([self.descriptor(plane[None].to(self.descriptor.device)) for plane in planes])
            if wanted < self.descriptor.scale:
                size = (x.shape[-2] * wanted, x.shape[-1] * wanted)
                done = F.interpolate(done, size, mode="bicubic", antialias=True, align_corners=False)
        done = done.float().cpu().clamp(0, 1)
        return (done[:, 0] if self.grey else done[0]).clone()

    def cost(self, size: tuple[int, int]) -> Cost:
        """Parameters, MACs, memory and time for a picture of this height and width."""
        return measure_cost(
            self.restore, size, network=self.descriptor.model, device=self.descriptor.device, count=self._macs
        )

    def options(self) -> dict[str, Any]:
        """What the results depend on besides the weights."""
        return {
            "architecture": self.descriptor.architecture.name,
            "scale": self.descriptor.scale,
            "device": self.descriptor.device.type,
            "precision": "float32",
        }

    def _macs(self, size: tuple[int, int]) -> int:
        right, below = self.descriptor.size_requirements.get_padding(size[1], size[0])
        padded = (size[0] + below, size[1] + right)
        return (
            3 * count_macs(self.descriptor.model, padded, 1) if self.grey else count_macs(self.descriptor.model, padded)
        )


def peer(path: str | Path, *, name: str | None = None, device: str | None = None) -> Peer:
    """Read a network of another project.

    The tensors are read by :func:`moir.checkpoints.read_foreign`, so nothing in the file is executed; spandrel then
    tells the architecture from their names and shapes.

    Args:
        path: A checkpoint: ``.pth``, ``.ckpt``, ``.pt``, ``.safetensors``.
        name: Name in tables; None: that of the file.
        device: See :func:`moir.runtime.device.choose_device`.

    Raises:
        MissingExtraError: spandrel is not installed, or its torchvision does not fit the torch that is.
        CheckpointError: The file is missing or damaged, or spandrel does not know its architecture.
        DeviceError: No such device here.
    """
    spandrel = import_spandrel()
    file = Path(path).expanduser()
    tensors = read_foreign(file).tensors
    descriptor = None
    # Some architectures have names that begin with what looks like the prefix of a training program.
    for prefix in ("", "model."):
        state = {prefix + key: value for key, value in tensors.items()}
        try:
            descriptor = spandrel.ModelLoader(choose_device(device)).load_from_state_dict(
                spandrel.canonicalize_state_dict(state)
            )
            break
        except spandrel.UnsupportedModelError:
            continue
        except (RuntimeError, KeyError, AssertionError, ValueError) as error:
            raise CheckpointError(
                f"{file} looks like a network that spandrel knows, but does not fit it: {error}"
            ) from error
    if descriptor is None:
        raise CheckpointError(
            f"{file} is of no architecture that spandrel {spandrel.__version__} knows; restore the pictures with "
            "its own program, and score them with: moir evaluate --predictions DIR"
        )
    descriptor.eval().float()
    return Peer(descriptor, name or file.stem, (file,))
