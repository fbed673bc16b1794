"""Stage 3: every group of the tree gets an expert: the shared network with some parameters trained on that group."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from moir.base.errors import TrainingError
from moir.base.names import CLEAN, DEGREES, TYPES
from moir.checkpoints import Card, read_tensors, write_tensors
from moir.checkpoints.card import sha256_of
from moir.models import find_weights
from moir.training.loop import Progress, train
from moir.training.recipe import Damage, Data, Loss, Model, Recipe
from moir.training.tree.extractor import shared_network
from moir.training.tree.recipe import OWN, ExpertPart, ExpertSettings, TreeRecipe
from moir.universal.expert_form import grown, with_form
from moir.universal.tree import Tree

WEIGHTS = "weights.safetensors"
START = "start.safetensors"
LEAST = 0.02
"""Share of clean pictures that an expert of one type sees: it must not invent what it removes. (Two fifths of pictures
without darkness made the expert of darkness so careful that it lost 1 to 5 dB on darkened ones.)"""


def train_experts(
    recipe: TreeRecipe,
    tree: Tree,
    members: Mapping[str, Mapping[str, int]],
    folder: Path,
    on_step: Callable[[str, Progress], None] | None = None,
) -> dict[int, Path]:
    """Train the experts one after the other, the coarser first; those that are finished are left out.

    Args:
        recipe: The run.
        tree: From the cluster stage.
        members: What was in each leaf; see :func:`moir.training.tree.cluster.members_of`.
        folder: Receives a folder for each expert, by its name.
        on_step: Called with the expert's name and its progress.

    Returns:
        Weights of the whole network (shared parameters included) by the expert's number.
    """
    weights: dict[int, Path] = {}
    base = shared_network(recipe.base).options
    for number in trained_experts(recipe, tree):
        name = tree.name_of(number)
        place = weights_of(folder, tree, number).parent
        finished = place / "done"
        if not finished.exists():
            start = str(weights.get(tree.parent_of(number), recipe.base))
            form = form_of(recipe, tree, number)
            if form != form_of(recipe, tree, tree.parent_of(number)):
                start = str(_grown(start, with_form(base, form), place / START))
            run = recipe_of(recipe, tree, members, number, with_form(base, form), start)
            train(run, place, on_step=None if on_step is None else partial(on_step, name))
            finished.touch()
        weights[number] = place / WEIGHTS
    return weights


def weights_of(folder: Path, tree: Tree, number: int) -> Path:
    """Where the weights of an expert's run are written."""
    return folder / tree.name_of(number).replace(" ", "_") / tree.level_of(number) / WEIGHTS


def trained_experts(recipe: TreeRecipe, tree: Tree) -> list[int]:
    """Numbers of the experts that are trained.

    All but the coarsest, the identities, those made of others alone, and those of 0 steps.
    """
    numbers = [n for n in range(1, tree.experts) if not tree.is_clean(n)]
    made = {n for n in composed_forms(recipe, tree) if not settings_of(recipe, tree, n).has_own}
    return [n for n in numbers if n not in made and steps_of(recipe, tree, n)]


def composed_forms(recipe: TreeRecipe, tree: Tree) -> dict[int, dict[str, Any]]:
    """Forms of the experts that are made of others, by number.

    Raises:
        TrainingError: A part is an expert that is not in the tree.
    """
    numbers = _numbers(tree)
    found = {number: settings_of(recipe, tree, number) for number in numbers.values()}
    return {number: _whole(settings, numbers) for number, settings in found.items() if settings.parts}


def combined_steps(recipe: TreeRecipe, tree: Tree) -> list[Any] | None:
    """The steps of what restores where no leaf is for what is there; None: there are none.

    Raises:
        TrainingError: A part is an expert that is not in the tree.
    """
    steps: list[Any] = _whole(ExpertPart(parts=recipe.experts.combined), _numbers(tree))["parts"]
    return steps or None


def _numbers(tree: Tree) -> dict[str, int]:
    return {f"{tree.name_of(n)} ({tree.level_of(n)})": n for n in range(tree.experts)}


def _whole(given: ExpertPart | ExpertSettings, numbers: Mapping[str, int]) -> dict[str, Any]:
    made: dict[str, Any] = {"parts": [[_form(part, numbers) for part in step] for step in given.parts]}
    if given.certainty:
        made["certainty"] = {name: list(ends) for name, ends in given.certainty.items()}
    return made


def _form(part: ExpertPart, numbers: Mapping[str, int]) -> dict[str, Any]:
    more = {} if part.weight == 1 else {"weight": part.weight}
    more |= {name: value for name, value in (("sure", part.sure), ("flatten", part.flatten)) if value}
    if part.parts:
        return _whole(part, numbers) | more
    if part.expert is None:
        return {"grid": part.told, **more}
    if part.expert == OWN:
        return {OWN: part.told, **more}
    if part.expert not in numbers:
        raise TrainingError(f"{part.expert!r} is no expert of this tree, which has {', '.join(numbers)}")
    return {"expert": numbers[part.expert], "told": part.told, **more}


def settings_of(recipe: TreeRecipe, tree: Tree, number: int) -> ExpertSettings:
    """What the recipe says of an expert alone."""
    return recipe.experts.each.get(f"{tree.name_of(number)} ({tree.level_of(number)})", ExpertSettings())


def steps_of(recipe: TreeRecipe, tree: Tree, number: int) -> int:
    """How long an expert is trained.

    Raises:
        TrainingError: The recipe does not say.
    """
    level, own = tree.level_of(number), settings_of(recipe, tree, number).steps
    steps = recipe.experts.steps.get(level) if own is None else own
    if steps is None:
        raise TrainingError(f"the recipe says no steps for level {level!r}: set experts.steps.{level}")
    return steps


def form_of(recipe: TreeRecipe, tree: Tree, number: int) -> dict[str, list[int]]:
    """Options of the shared network that an expert changes: its own, or else those of the expert above it."""
    while number != 0:
        form = settings_of(recipe, tree, number).form
        if form is not None:
            return form
        number = tree.parent_of(number)
    return {}


def recipe_of(
    recipe: TreeRecipe,
    tree: Tree,
    members: Mapping[str, Mapping[str, int]],
    number: int,
    options: Mapping[str, Any],
    start: str,
) -> Recipe:
    """The training run of one expert.

    Args:
        recipe, tree, members: See :func:`train_experts`.
        number: The expert's.
        options: Of its network.
        start: Weights to start from, of the same options.

    Raises:
        TrainingError: The recipe names no steps for its level.
    """
    stage, name, steps = recipe.experts, tree.name_of(number), steps_of(recipe, tree, number)
    inside: Counter[str] = Counter()
    for leaf in tree.members(number):
        inside.update(members[leaf.name])
    told, own, damage = tree.instruction(number), settings_of(recipe, tree, number), recipe.damage()
    if own.stored is not None:
        damage = damage.model_copy(update={"stored": own.stored})
    patch = own.patch or stage.patch
    changes = {
        "patch": patch,
        "instruct": 1.0 if told else 0.0,
        "told": list(told),
        "damage": damage_of_type(inside, told[0], damage) if told else damage_of(inside, damage),
    }
    if own.smallest_scale is not None:
        changes["smallest_scale"] = own.smallest_scale
    if own.scenes is not None:
        changes["scenes"] = own.scenes
    data = recipe.data.model_copy(update=changes)
    return Recipe(
        name=name,
        model=Model(name="compact", options=dict(options), start=start, train=stage.train),
        data=Data.model_validate(data.model_dump()),
        steps=steps,
        batch=max(1, round(stage.batch * (stage.patch / patch) ** 2)),
        precision=stage.precision,
        seed=recipe.seed + number,
        loss=Loss(l1=0.6, log_l1=0.05, presence=0, degree=0),
        optimiser=stage.optimiser,
        validation=recipe.held_out.model_copy(update={"damages": _validated(inside), "every": max(1, steps // 2)}),
        save_every=recipe.save_every,
        log_every=recipe.log_every,
    )


def _grown(start: str, options: Mapping[str, Any], path: Path) -> Path:
    """Weights of a larger network that does as yet what the one to start from does."""
    network = grown(read_tensors(find_weights(start))[0], options)
    write_tensors(path, network.state_dict(), overwrite=True)
    card = Card.read(find_weights(start).with_suffix(".json"))
    card = replace(card, options=dict(options), sha256=sha256_of(path))
    card.write(path.with_suffix(".json"), overwrite=True)
    return path


def damage_of(inside: Mapping[str, int], base: Damage) -> Damage:
    """The damage that a group of several types is trained on, from what it holds.

    Examples:
        >>> made = damage_of({"noise-haze": 3, "light noise": 1}, Damage())
        >>> made.single, made.types["noise"], made.types["haze"], made.types["rain"]
        (0.25, 4.0, 3.0, 0.0)
    """
    total = sum(inside.values())
    types: Counter[str] = Counter()
    degrees: Counter[str] = Counter()
    single = clean = 0
    for words, count in inside.items():
        degree, named = _read(words)
        types.update(dict.fromkeys(named, count))
        degrees.update({degree: count} if degree else {})
        single += count if len(named) == 1 else 0
        clean += count if not named else 0
    mixed = 1 - (single + clean) / total
    return base.model_copy(
        update={
            "clean": clean / total,
            "single": single / total,
            "named": mixed * base.named / max(1e-6, 1 - base.clean - base.single),
            "types": {type_: float(types[type_]) for type_ in TYPES},
            "levels": {d: float(degrees[d] + 1) for d in DEGREES},
        }
    )


def damage_of_type(inside: Mapping[str, int], type_: str, base: Damage) -> Damage:
    """The damage that a group of one type is trained on: that type alone, in the degrees that the group holds.

    Examples:
        >>> made = damage_of_type({"light rain": 3, "medium rain": 1, "heavy rain-haze": 1}, "rain", Damage())
        >>> made.types, made.levels
        ({'rain': 1.0}, {'light': 3.0, 'medium': 1.0, 'heavy': 0.0})
    """
    own = {_read(words)[0]: count for words, count in inside.items() if _read(words)[1] == (type_,)}
    return base.model_copy(
        update={
            "clean": LEAST,
            "single": 1 - LEAST,
            "named": 0.0,
            "gate": 0.0,
            "types": {type_: 1.0},
            "levels": {d: float(own.get(d, 0)) for d in DEGREES} if sum(own.values()) else base.levels,
        }
    )


def _read(words: str) -> tuple[str | None, tuple[str, ...]]:
    """Degree and types of what :func:`moir.training.tree.cluster.words` wrote."""
    degree, _, types = words.rpartition(" ")
    return degree or None, () if types == CLEAN else tuple(types.split("-"))


def _validated(inside: Mapping[str, int]) -> list[str]:
    """The three most frequent damages of a group, as specifications for the validation."""
    specs: list[str] = []
    for words, _ in Counter(inside).most_common():
        degree, types = _read(words)
        if types and len(specs) < 3:
            specs.append(",".join(f"{type_}={degree or 'medium'}" for type_ in types))
    return specs or [CLEAN]
