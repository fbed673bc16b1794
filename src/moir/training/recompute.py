"""Gradient checkpointing: keep the inputs of blocks, and compute again on the way back what is inside.

After Chen et al., "Training deep nets with sublinear memory cost" (arXiv 1604.06174).
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute_blocks(network: nn.Module) -> int:
    """Make the blocks of a network recompute their inside during the backward pass.

    A block is the outermost module that stands in a list beside others of its class: a transformer block, a residual
    block. Results and gradients stay what they were.

    Args:
        network: Changed in place. Its state dict is not.

    Returns:
        How many blocks were found.
    """
    kinds = Counter(type(child) for child in network.children())
    in_a_list = isinstance(network, nn.Sequential | nn.ModuleList)
    found = 0
    for child in network.children():
        # Layers by themselves hold nothing worth recomputing, and lists are not called.
        if in_a_list and kinds[type(child)] > 1 and _has_parts(child) and not isinstance(child, nn.ModuleList):
            child.forward = partial(_recomputed, child.forward)
            found += 1
        else:
            found += recompute_blocks(child)
    return found


def _has_parts(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


def _recomputed(forward: Callable[..., Any], *arguments: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments)
    return checkpoint(forward, *arguments, use_reentrant=False)
