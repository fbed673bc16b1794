"""How one set of the table stands below a data root: where it is, how many pictures, what is wrong; decodes nothing."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from moir.datasets.entry import DataSet, Layout
from moir.datasets.folders import Tree
from moir.datasets.pairing import Matching, match

Status = Literal["complete", "found", "wrong count", "unpaired", "incomplete", "missing", "damaged"]


@dataclass
class Survey:
    """How a set stands.

    Attributes:
        dataset: The set.
        status: ``complete``: as published. ``found``: all pictures have partners, and no published number is known.
            ``wrong count``: another number than published. ``unpaired``: some pictures lack a partner. ``incomplete``:
            one of the two folders is missing or empty. ``missing``. ``damaged``: pictures that cannot be read, or pairs
            of different sizes (only where pictures were decoded).
        layout: The accepted layout that was found.
        pairs: (name, input, target); input is None for clean pictures.
        unpaired: Pictures without a partner (and, where several inputs may share a target, targets nobody uses).
        problems: What is wrong, in words.
    """

    dataset: DataSet
    status: Status
    layout: Layout | None = None
    pairs: list[tuple[str, Path | None, Path]] = field(default_factory=list)
    unpaired: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def n(self) -> int:
        """How many pairs, or clean pictures, were found."""
        return len(self.pairs)

    @property
    def there(self) -> bool:
        """Whether it can be read, if not as published."""
        return self.status not in ("missing", "incomplete")

    @property
    def fine(self) -> bool:
        """Whether nothing is wrong with it."""
        return self.status in ("complete", "found")


def survey(dataset: DataSet, tree: Tree) -> Survey:
    """Look for a set in all its accepted layouts.

    Taken is the first layout with the published number of pictures, else the first that holds any pair, else the first
    of which at least one folder is there.
    """
    best: Survey | None = None
    for layout in dataset.layouts():
        found = _in_layout(dataset, layout, tree)
        if found.fine:
            return found
        if best is None or _rank(found) > _rank(best):
            best = found
    assert best is not None  # every set has a layout
    return best


def how_to_get(dataset: DataSet) -> str:
    """The expected layout and where the set comes from, for messages."""
    return f"expected {next(dataset.layouts())} below the data root; get it from {dataset.source.get}"


def some(paths: list[Path], limit: int = 5) -> str:
    """Name a few files, and how many more there are."""
    names = ", ".join(path.name for path in paths[:limit])
    return names + (f" and {len(paths) - limit} more" if len(paths) > limit else "")


def _rank(found: Survey) -> int:
    return ("missing", "incomplete").index(found.status) if not found.there else 2 + bool(found.pairs)


def _in_layout(dataset: DataSet, layout: Layout, tree: Tree) -> Survey:
    scenes = layout.input is not None and layout.input.count("*") == layout.target.count("*")
    targets = tree.pictures(layout.target, scenes=scenes)
    if layout.input is None:
        if not targets:
            return Survey(dataset, "missing")
        return _counted(Survey(dataset, "found", layout, [(path.stem, None, path) for _, path in targets]))
    inputs = tree.pictures(layout.input, scenes=scenes)
    if layout.input == layout.target:
        return _paired(Survey(dataset, "found", layout), match(inputs, targets, layout.pairing), layout)
    there = [folder for folder, pictures in ((layout.input, inputs), (layout.target, targets)) if pictures]
    if len(there) == 2:
        return _paired(Survey(dataset, "found", layout), match(inputs, targets, layout.pairing), layout)
    if not there or (there == [layout.target] and _shared(dataset, layout)):
        return Survey(dataset, "missing")
    absent = layout.target if there[0] == layout.input else layout.input
    state = "holds no pictures" if tree.find(absent) else "is missing"
    problem = f"{there[0]}/ is there, but {absent}/ {state}; {how_to_get(dataset)}"
    return Survey(dataset, "incomplete", layout, problems=[problem])


def _shared(dataset: DataSet, layout: Layout) -> bool:
    # The clean pictures of DIV2K or CDD11, and folders that hold other sets too, do not announce every set of them.
    return bool(dataset.family) or not dataset.paired or any(layout.target in (place, ".") for place in dataset.places)


def _paired(found: Survey, matching: Matching, layout: Layout) -> Survey:
    found.pairs = list(matching.pairs)
    if not matching.pairs and not layout.pairing.strict:
        return Survey(found.dataset, "missing")
    found.unpaired = matching.inputs + matching.targets + matching.clashes
    for paths, what in (
        (matching.inputs, "without a target"),
        (matching.targets, "targets without an input"),
        (matching.clashes, "with the name of another"),
    ):
        if paths:
            found.problems.append(f"{len(paths)} {what}: {some(paths)} (rule: {layout.pairing.text})")
    found = _counted(found)
    # Where inputs share targets, a subset of the inputs leaves targets over: that is a wrong count, not a wrong name.
    if matching.inputs or matching.clashes or (matching.targets and not layout.pairing.many):
        found.status = "unpaired"
    return found


def _counted(found: Survey) -> Survey:
    counts = found.dataset.counts
    if counts:
        found.status = "complete" if found.n in counts else "wrong count"
        if found.status == "wrong count":
            what = "pairs" if found.dataset.paired else "pictures"
            found.problems.insert(0, f"{found.n} {what}, published are {found.dataset.expected()}")
    return found
