"""Which networks have a fast twin, and making it."""

import torch

from moir.base.errors import InvalidValueError
from moir.networks.base import RestorationNetwork

PRECISIONS = (torch.float32, torch.bfloat16)

KNOWN = ("moir.networks.", "moir.layers.", "moir.experts.", "torch.nn.modules.")
"""Where the parts of a network come from whose twin computes all there is; adapters come from elsewhere."""


def accelerate(network: RestorationNetwork, dtype: torch.dtype = torch.float32) -> RestorationNetwork | None:
    """Make the fast twin of a network, for inference on a CPU.

    The twin has copies of the weights as they are now; make it again when they change. It takes and gives float32
    pictures whatever ``dtype`` is, and needs no autocast.

    Args:
        network: A network of ``moir.networks``, on the CPU.
        dtype: Precision of the arithmetic: ``torch.float32``, or ``torch.bfloat16`` where the processor has it.

    Returns:
        The twin, in evaluation mode, or None if there is none for this network (another class, a subclass that may
        compute something else, an adapter attached, or options without a twin).

    Raises:
        InvalidValueError: Another precision.

    Examples:
        >>> from moir.models import create_model
        >>> network = create_model("test_restormer").eval()
        >>> twin = accelerate(network)
        >>> picture = torch.rand(1, 3, 20, 30)
        >>> bool((twin(picture) - network(picture)).abs().max() < 1e-4)
        True
        >>> accelerate(create_model("test_unet")) is None
        True
    """
    if dtype not in PRECISIONS:
        raise InvalidValueError(f"{dtype} has no fast form; use torch.float32 or torch.bfloat16")
    composed = network.accelerated(lambda part: accelerate(part, dtype))
    if composed is not None:
        return composed
    if not _is_as_defined(network):
        return None
    # By exact class: a subclass may compute something else. By name first: most networks need none of these imports.
    kind = type(network).__name__
    if kind == "MoCEIR":
        from moir.networks.moce_ir import MoCEIR
        from moir.runtime.fast.moce_ir import FastMoCEIR, supports

        if type(network) is MoCEIR and supports(network):
            return FastMoCEIR(network, dtype)
    elif kind in ("Restormer", "LoRARestormer"):
        from moir.networks.lora_restormer import LoRARestormer
        from moir.networks.restormer import Restormer
        from moir.runtime.fast.restormer import FastRestormer

        if isinstance(network, Restormer) and type(network) in (Restormer, LoRARestormer):
            return FastRestormer(network, dtype)
    elif kind == "Compact":
        from moir.networks.compact import Compact
        from moir.runtime.fast.compact import FastCompact

        if type(network) is Compact:
            return FastCompact(network, dtype)
    return None


def _is_as_defined(network: RestorationNetwork) -> bool:
    """Whether nothing was added to the network: no adapter, no hook, no parametrization."""
    return not any(
        module._forward_hooks or module._forward_pre_hooks or not type(module).__module__.startswith(KNOWN)
        for module in network.modules()
    )
