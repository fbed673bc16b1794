"""Fast twins: networks that give what ``moir.networks`` defines, many times faster on a CPU.

A network in ``networks/`` is the definition, written as published. Its twin here holds the same weights, laid out and
rounded once, and computes the same function in another order of steps. A twin is a
:class:`~moir.networks.base.RestorationNetwork` for inference: the same ``analyse``, ``instruct``, ``prepare``,
``account`` and ``forward(x, context)``, the same context, so that either can continue what the other decided.
"""

from moir.runtime.fast.choice import accelerate

__all__ = ["accelerate"]
