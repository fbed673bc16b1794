"""What can go wrong when a network is exported."""

from moir.base.errors import MoirError


class ExportError(MoirError):
    """A network cannot be exported, a graph does not agree with it, or a folder holds no export."""
