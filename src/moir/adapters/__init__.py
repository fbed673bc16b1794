"""Parameter-efficient adapters: AdaptIR and what it is compared to, for any network."""

from moir.adapters.attach import (
    Attachment,
    adapt_each,
    adapter_parameters,
    adapter_state,
    attach,
    attached,
    detach,
    load_adapter_state,
    merge,
    parameter_count,
    set_active,
)
from moir.adapters.methods import METHODS

__all__ = [
    "METHODS",
    "Attachment",
    "adapt_each",
    "adapter_parameters",
    "adapter_state",
    "attach",
    "attached",
    "detach",
    "load_adapter_state",
    "merge",
    "parameter_count",
    "set_active",
]
