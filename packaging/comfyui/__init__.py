"""moir in ComfyUI: copy this folder to ``ComfyUI/custom_nodes/moir`` and install moir in ComfyUI's Python.

It does two things:

- The node *Restore (moir)* decides once for each whole picture, as ``moir restore`` does, and can be told what to
  remove.
- ComfyUI's own *Load Upscale Model* then loads moir's weights, too, from ``models/upscale_models``. ComfyUI cuts
  pictures into tiles of 512 pixels itself, and each decides alone: use the node above for anything larger.
"""

from functools import lru_cache
from typing import Any

import torch

import moir
from moir.base.names import TASKS
from moir.models import shipped
from moir.plugins.spandrel import install

ANY = "whatever is found"

install()


@lru_cache(maxsize=1)
def _restorer(model: str) -> moir.Restorer:
    return moir.load(model)


class RestoreWithMoir:
    """Restore pictures of any damage; see https://docs.comfy.org for what the names in capitals mean."""

    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("image", "report")
    FUNCTION = "restore"
    CATEGORY = "image/restoration"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        """What the node asks for."""
        return {
            "required": {
                "image": ("IMAGE",),
                "model": (shipped(),),
                "task": ([ANY, *TASKS],),
                "strength": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.05}),
            }
        }

    def restore(self, image: torch.Tensor, model: str, task: str, strength: float) -> tuple[torch.Tensor, str]:
        """Restore a batch.

        Args:
            image: (B, H, W, 3), float32, [0, 1], as ComfyUI hands pictures around.
            model: Name of shipped weights.
            task: One of moir's tasks, or :data:`ANY`.
            strength: 0..1.

        Returns:
            The restored pictures, in the same layout, and what was found, a line for each.
        """
        pictures = list(image.movedim(-1, 1)[:, :3].float().cpu().clamp(0, 1).contiguous())
        results = _restorer(model).batch(pictures, task=None if task == ANY else task, strength=strength)
        report = "\n".join(
            ", ".join(f"{found.type} ({found.degree}) {found.probability:.0%}" for found in result.estimate)
            for result in results
        )
        restored = torch.stack([result.tensor for result in results]).movedim(1, -1)
        return restored.to(image.device), report


NODE_CLASS_MAPPINGS = {"RestoreWithMoir": RestoreWithMoir}
NODE_DISPLAY_NAME_MAPPINGS = {"RestoreWithMoir": "Restore (moir)"}
