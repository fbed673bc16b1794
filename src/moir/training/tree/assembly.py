"""Extractor, tree, experts and router into one network, and its file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from moir.checkpoints import Card, read_tensors, write_tensors
from moir.checkpoints.card import sha256_of
from moir.models import find_weights, shipped
from moir.training.tree.cluster import load_extractor
from moir.training.tree.experts import form_of
from moir.training.tree.extractor import shared_network
from moir.training.tree.recipe import TreeRecipe
from moir.universal.compact_tree import CompactUniRestorer
from moir.universal.router import Router
from moir.universal.tree import Tree


@torch.no_grad()
def assemble(
    recipe: TreeRecipe, tree: Tree, extractor: Path, experts: Mapping[int, Path], router: Router | None = None
) -> CompactUniRestorer:
    """Put the trained parts together.

    Args:
        recipe: The run.
        tree: From the cluster stage.
        extractor: Weights of the extractor.
        experts: For each expert that has parameters of its own the weights of its whole network.
        router: The trained router; None: an untrained one, which chooses the coarsest expert.

    Returns:
        The network, in evaluation mode.
    """
    base, seen = shared_network(recipe.base), load_extractor(recipe, extractor)
    options: dict[str, Any] = {
        "tree": tree.to_options(),
        "base": base.options,
        "extractor": {"features": recipe.extractor.features, "width": recipe.extractor.width},
        "own": list(recipe.experts.train),
        "trained": sorted(experts),
        "forms": {str(n): form for n in sorted(experts) if (form := form_of(recipe, tree, n))},
        "sure": recipe.router.sure,
        "sure_mixed": recipe.router.sure_mixed,
        "believed": recipe.router.believed,
    }
    network = CompactUniRestorer(**options)
    network.options = options
    network.base.load_state_dict(base.state_dict())
    network.extractor.load_state_dict(seen.state_dict())
    for number, path in experts.items():
        tensors, _ = read_tensors(path)
        for name, parameter in network.experts[number].named_parameters():
            parameter.copy_(tensors[name])
    if router is not None:
        network.load_state_dict(router.state_dict(), strict=False)
    return network.eval()


def save(network: CompactUniRestorer, path: Path, recipe: TreeRecipe, compute: Mapping[str, Any]) -> None:
    """Write the network and its card; metrics and words join the card when it is published.

    A shared network that is shipped is not written again: the card names it.

    Args:
        network: From :func:`assemble`.
        path: A .safetensors file.
        recipe: The run.
        compute: What was spent, for the card.
    """
    tensors, parts = network.state_dict(), {}
    if recipe.base in shipped():
        base = find_weights(recipe.base)
        parts["base."] = {"weights": recipe.base, "sha256": Card.read(base.with_suffix(".json")).sha256}
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("base.")}
    write_tensors(path, tensors, overwrite=True)
    Card(
        name=recipe.name,
        model="unirestorer_compact",
        options=network.options,
        source=f"moir train, recipe {recipe.name}, on the shared network {recipe.base}",
        compute=dict(compute),
        size_multiple=network.size_multiple,
        overlap=network.overlap,
        parameters=sum(p.numel() for p in network.parameters()),
        sha256=sha256_of(path),
        parts=parts,
    ).write(path.with_suffix(".json"), overwrite=True)
