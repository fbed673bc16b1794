"""Restormer fine-tuned by low-rank changes of all its convolutions: the LoRA experts of UniRestorer.

Paper: "UniRestorer: Universal Image Restoration via Adaptively Estimating Image Degradation at Proper Granularity",
ICLR 2026, arXiv 2412.20157; LoRA is arXiv 2106.09685. State-dict names and shapes are the published ones.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from moir.base.errors import CheckpointError
from moir.layers.layer_norm import LayerNormType
from moir.layers.lora_conv import LoRAConv2d
from moir.networks.base import build
from moir.networks.restormer import Restormer

ADAPTED = (".lora_A", ".lora_B", ".temperature")
"""Ends of the names that training changes, besides the norms."""


class LoRARestormer(Restormer):
    """Restormer with a low-rank change on **every** convolution, depthwise ones too.

    Only the low-rank factors, the layer norms and the attention temperatures are trained
    (:meth:`freeze_base`, called at construction; :meth:`adapted_state` is what a fine-tuning changes).

    **Merged files.** The published code adds the change into ``conv.weight`` when it is set to evaluation and takes it
    out again for training; a file saved in between has the change in it *and* the factors beside it, and whoever loads
    it and evaluates applies the change twice. Here the stored weight is never touched, so a file saved at any time
    is right. A file that the published code saved after evaluation cannot be told from a right one by its numbers; if
    results are visibly too strong, load the base again with :meth:`load_base`.

    Args:
        inp_channels, out_channels, dim, num_blocks, num_refinement_blocks, heads, ffn_expansion_factor, bias,
            LayerNorm_type, dual_pixel_task: See :class:`~moir.networks.restormer.Restormer`.
        r: Rank of the changes.
        lora_alpha: The changes are scaled by ``lora_alpha / r``.

    Raises:
        InvalidValueError: See :class:`~moir.networks.restormer.Restormer`; or a rank below 1.
    """

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: LayerNormType = "WithBias",
        dual_pixel_task: bool = False,
        r: int = 8,
        lora_alpha: float = 16,
    ) -> None:
        super().__init__(
            inp_channels,
            out_channels,
            dim,
            num_blocks,
            num_refinement_blocks,
            heads,
            ffn_expansion_factor,
            bias,
            LayerNorm_type,
            dual_pixel_task,
        )
        for module in list(self.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.Conv2d) and not isinstance(module, LoRAConv2d):
                    setattr(module, name, LoRAConv2d(child, r, lora_alpha))
        self.freeze_base()

    def freeze_base(self) -> None:
        """Make low-rank factors, norms and temperatures trainable, and nothing else."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(_is_adapted(name))

    def adapted_state(self) -> dict[str, torch.Tensor]:
        """The part of the state dict that fine-tuning changes: enough to store beside a shared Restormer."""
        return {name: value for name, value in self.state_dict().items() if _is_adapted(name)}

    def load_base(self, restormer: Mapping[str, torch.Tensor]) -> None:
        """Take the convolutions of a Restormer, and leave the factors, norms and temperatures as they are.

        Args:
            restormer: A state dict of :class:`~moir.networks.restormer.Restormer` of the same size.

        Raises:
            CheckpointError: A convolution is missing or of another shape.
        """
        with torch.no_grad():
            for name, module in self.named_modules():
                if isinstance(module, LoRAConv2d):
                    for kind, own in module.conv.named_parameters():
                        given = restormer.get(f"{name}.{kind}")
                        if given is None or given.shape != own.shape:
                            found = "is missing" if given is None else f"has shape {tuple(given.shape)}"
                            raise CheckpointError(
                                f"{name}.{kind} {found}; a Restormer with {tuple(own.shape)} is needed"
                            )
                        own.copy_(given)

    def merged_state(self) -> dict[str, torch.Tensor]:
        """The state dict of the plain Restormer that computes the same, with the changes in its weights."""
        merged = {name: value.clone() for name, value in self.state_dict().items() if ".lora_" not in name}
        for name, module in self.named_modules():
            if isinstance(module, LoRAConv2d):
                merged[f"{name}.conv.weight"] = module.effective_weight().detach()
        return {name.replace(".conv.", "."): value for name, value in merged.items()}


def _is_adapted(name: str) -> bool:
    return name.endswith(ADAPTED) or "norm" in name


def lora_restormer(**options: Any) -> LoRARestormer:
    """LoRA Restormer as in UniRestorer (rank 8, alpha 16): 31,771,300 parameters, 5,674,756 of them trained.

    Args:
        **options: Options of :class:`LoRARestormer` that differ from the published ones.

    Raises:
        UnknownNameError: An option that the network does not have.
    """
    return build(LoRARestormer, {}, options)


def test_lora_restormer(**options: Any) -> LoRARestormer:
    """A tiny one for tests.

    Args:
        **options: Options of :class:`LoRARestormer` that differ from the tiny ones.
    """
    tiny = {"dim": 8, "num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1, "r": 2, "lora_alpha": 4}
    return build(LoRARestormer, tiny, options)


test_lora_restormer.__test__ = False  # type: ignore[attr-defined]  # pytest must not collect it
