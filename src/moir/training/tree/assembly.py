"""Extractor, tree, experts and router into one network, and its file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from moir.checkpoints import Card, read_tensors, write_tensors
from moir.checkpoints.card import sha256_of
from moir.models import find_weights, load_model, shipped
from moir.training.tree.cluster import load_extractor
from moir.training.tree.experts import combined_steps, composed_forms, form_of
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
    composed, grid = composed_forms(recipe, tree), None if recipe.scene is None else load_model(recipe.scene)[0]
    forms: dict[int, Any] = {n: form for n in sorted(experts) if (form := form_of(recipe, tree, n))}
    for number, form in composed.items():
        forms[number] = form | (forms.get(number, {}) if number in experts else {})
    options: dict[str, Any] = {
        "tree": tree.to_options(),
        "base": base.options,
        "extractor": {"features": recipe.extractor.features, "width": recipe.extractor.width},
        "own": list(recipe.experts.train),
        "scene": None if grid is None else grid.options,
        "trained": sorted({*experts, *composed}),
        "forms": {str(n): form for n, form in forms.items()},
        "sure": recipe.router.sure,
        "sure_mixed": recipe.router.sure_mixed,
        "believed": recipe.router.believed,
        "alone": recipe.router.alone,
        "finest": recipe.router.finest,
        "steps": combined_steps(recipe, tree),
        "certain": recipe.router.certain,
    }
    network = CompactUniRestorer(**options)
    network.options = options
    network.base.load_state_dict(base.state_dict())
    network.extractor.load_state_dict(seen.state_dict())
    if network.scene is not None and grid is not None:
        network.scene.load_state_dict(grid.state_dict())
    for number, path in experts.items():
        tensors, _ = read_tensors(path)
        for name, parameter in network.experts[number].named_parameters():
            parameter.copy_(tensors[name])
    if router is not None:
        network.load_state_dict(router.state_dict(), strict=False)
    return network.eval()


def save(network: CompactUniRestorer, path: Path, recipe: TreeRecipe, compute: Mapping[str, Any]) -> None:
    """Write the network and its card; metrics and words join the card when it is published.

    A shared network or bilateral grid that is shipped is not written again: the card names it.

    Args:
        network: From :func:`assemble`.
        path: A .safetensors file.
        recipe: The run.
        compute: What was spent, for the card.
    """
    tensors, parts = network.state_dict(), {}
    for prefix, name in (("base.", recipe.base), ("scene.", recipe.scene)):
        if name in shipped():
            parts[prefix] = {"weights": name, "sha256": Card.read(find_weights(name).with_suffix(".json")).sha256}
            tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(prefix)}
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
