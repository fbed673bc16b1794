"""One file per network. A network maps damaged pictures to restored ones; see :mod:`moir.networks.base`."""
