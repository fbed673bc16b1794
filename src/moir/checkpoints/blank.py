"""Making networks whose weights are about to be read: without the random numbers that the weights replace."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_DRAWING: frozenset[Callable[..., Any]] = frozenset(
    {
        nn.init.kaiming_uniform_,
        nn.init.normal_,
        nn.init.uniform_,
        torch.Tensor.normal_,
        torch.Tensor.uniform_,
    }
)
"""What fills a tensor with random numbers in place. Other initialisers end in one of these."""


class _Blank(TorchFunctionMode):
    """Fills with zeros where random numbers were asked for."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func not in _DRAWING:
            return func(*args, **given)
        tensor: torch.Tensor = args[0] if args else given["tensor"]
        with torch.no_grad():
            return tensor.zero_()


@contextmanager
def blank_weights() -> Iterator[None]:
    """Within it, tensors that a network would fill at random are zero.

    For a network into which a state dict is then loaded strictly, so that every parameter is replaced: drawing the
    numbers takes longer than reading them from a file, and would move the caller's random state. Zeros, rather than
    memory as it was found, since some adapters compute with the weights they are attached to. What a network does not
    draw in place (constants, tables, ``torch.randn``) is as ever.

    Examples:
        >>> with blank_weights():
        ...     layer = nn.Linear(2, 2)
        >>> layer.weight.abs().sum().item()
        0.0
    """
    with _Blank():
        yield
