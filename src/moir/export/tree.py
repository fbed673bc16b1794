"""The shipped tree of experts as graphs: one that decides (its own ``analyse``), and one per expert.

Why one graph per expert, and not one graph that picks the expert's weights by number: a convolution whose weights
depend on the picture would have to be repeated for each picture of a batch, engines could not lay out its weights
beforehand, and experts may have more blocks than the shared network. What they share is in one file all the same
(:mod:`moir.export.sharing`).
"""

from moir.universal.compact_tree import CompactUniRestorer

EXPERT = "expert"
"""The context's tensor that holds each picture's expert, by number."""


def graphs_of(network: CompactUniRestorer) -> list[int | None]:
    """By the number of each expert, the number of the one whose graph restores; None: pictures stay as they are.

    What takes the steps comes after those of the tree.
    """
    tree = network.tree
    own = [None if tree.is_clean(number) else network.owner_of(number) for number in range(tree.experts)]
    return own if network.steps is None else [*own, tree.experts]
