"""The user's own pairs: decoded once, some of them held out, the others cut into patches.

For a network that makes pictures larger, targets are as many times larger than inputs. Places and sizes are counted in
pixels of the input, so that patches and views of a pair belong together whatever its scale.

Patches of step i depend on (seed, i) alone, so a run that is continued goes on exactly where it stopped.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from moir import datasets, degrade
from moir.base.errors import TrainingError
from moir.datasets import DatasetError, FolderMissingError, PairedSet, PairSizeError
from moir.datasets.folders import Tree
from moir.degrade import Request
from moir.picture import read
from moir.training.adaptation_settings import Adaptation
from moir.training.data import clean_pictures, generator_of

log = logging.getLogger(__name__)

BUDGET = 2 * 1024**3
"""Bytes that all decoded pairs together may take; of larger pictures a window each is kept."""

VIEW = 256
"""Side of what is scored of a held-out picture, pixels of the target."""

VIEWS = 16
"""About so many views are scored in all: several of each picture where few are held out."""

_WINDOW, _SPLIT, _VIEW, _DAMAGE = range(4)  # streams of random numbers, apart from those of the patches (2 parts)


@dataclass(frozen=True)
class Pair:
    """A decoded pair, uint8.

    Attributes:
        name: Of the picture.
        input: (3, H, W); None where it is the target, damaged on the fly.
        target: (3, sH, sW), s the scale of the network; 1 but for super-resolution.
    """

    name: str
    input: torch.Tensor | None
    target: torch.Tensor

    @property
    def source(self) -> torch.Tensor:
        """The input, or the target that stands for it before it is damaged."""
        return self.target if self.input is None else self.input

    @property
    def scale(self) -> int:
        """How many times larger the target is than the input."""
        return self.target.shape[-1] // self.source.shape[-1]


@dataclass(frozen=True)
class Source:
    """Where pairs come from: two folders, or clean pictures and what is done to them.

    Attributes:
        target: Folder of clean pictures.
        input: Folder of damaged ones, of the same names; None: they are made.
        spec: What is done to the clean ones; see :func:`moir.degrade.parse`. For a network that makes pictures larger
            they are shrunk first, and None means: no more than that.

    Raises:
        TrainingError: Both ``input`` and ``spec``.
    """

    target: Path
    input: Path | None = None
    spec: str | None = None

    def __post_init__(self) -> None:
        if self.input is not None and self.spec is not None:
            raise TrainingError(
                f"give either damaged pictures ({self.input}) or what to do to the clean ones ({self.spec!r}), not both"
            )

    @property
    def damage(self) -> Request | None:
        """What is done to the clean pictures, shrunk where the network enlarges; None: nothing."""
        return None if self.spec is None else degrade.parse(self.spec)


def in_folder(folder: str | Path) -> Source:
    """The source ``FOLDER/input`` and ``FOLDER/target``, whatever the case of these names.

    Raises:
        DatasetError: One of them is not there; the message says what is.
    """
    tree = Tree(Path(folder).expanduser())
    found = {name: [path for _, path in tree.find(name)] for name in ("input", "target")}
    missing = [name for name, paths in found.items() if not paths]
    if missing:
        there = ", ".join(sorted(path.name for path in tree.root.iterdir() if path.is_dir())) or "no folders"
        raise FolderMissingError(
            f"{tree.root} has no folder {' and no folder '.join(missing)} (there: {there}); put damaged pictures into "
            "input/ and clean ones of the same names into target/, or name the folders with --input and --target"
        )
    return Source(found["target"][0], found["input"][0])


def load_pairs(source: Source, seed: int, scale: int = 1) -> list[Pair]:
    """Decode all pairs.

    Args:
        source: Where they are. Clean pictures without damaged ones are shrunk by ``scale`` (:func:`shrunk`).
        seed: Of the windows of pictures that are too large to keep.
        scale: How many times larger the network makes pictures.

    Raises:
        DatasetError: Folders are missing or empty, pictures have no partner, cannot be read, or their sizes are not
            those of ``scale``. All pictures at fault are named.
        TrainingError: There are fewer than two: one to train on, one to score. Or nothing is done to the clean ones.
    """
    if source.input is None and source.spec is None and scale == 1:
        raise TrainingError(
            f"this network keeps the size of pictures, so the clean ones in {source.target} are no pairs yet: say what "
            "to do to them (--with 'rain=heavy,noise=25'), or give damaged pictures of the same names"
        )
    files: Sequence[datasets.Pair]
    if source.input is None:
        files = [datasets.Pair(path.stem, None, path) for path in clean_pictures([str(source.target)])]
    else:
        files = datasets.pairs(source.input, source.target).pairs
    if len(files) < 2:
        raise TrainingError(
            f"one pair ({files[0].target}) is too few: at least one is trained on and another one held out; add a "
            "pair, or cut this one into two"
        )
    found: list[Pair] = []
    problems = []
    for file in files:
        try:
            found.append(_window(_load(file, scale), BUDGET // len(files), seed, len(found)))
        except DatasetError as error:
            problems.append(error)
    if problems:
        more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise type(problems[0])("; ".join(map(str, problems[:10])) + more)
    return found


def split(pairs: Sequence[Pair], settings: Adaptation) -> tuple[list[Pair], list[Pair]]:
    """The pairs to train on and those held out, drawn by seed; at least one of each."""
    held = min(max(1, round(settings.held_out * len(pairs))), settings.most_held_out, len(pairs) - 1)
    order = torch.randperm(len(pairs), generator=generator_of(settings.seed, 0, _SPLIT, 0)).tolist()
    return [pairs[i] for i in sorted(order[held:])], [pairs[i] for i in sorted(order[:held])]


class Patches:
    """Random patches of pairs, turned and mirrored.

    Args:
        pairs: To train on, all of one scale s.
        settings: Patch, batch, seed, and how patches are varied.
        damage: What is done to inputs, anew for every patch.

    Raises:
        TrainingError: An input has a side below 16 pixels.
    """

    def __init__(self, pairs: Sequence[Pair], settings: Adaptation, damage: Request | None = None) -> None:
        self.pairs, self.settings, self.damage = pairs, settings, damage
        smallest = min(pairs, key=lambda pair: min(pair.source.shape[-2:]))
        self.side = min(settings.patch, *smallest.source.shape[-2:])
        if self.side < 16:
            raise TrainingError(f"{smallest.name} is only {self.side} px wide or high; inputs need 16 px or more")

    def batch(self, step: int, stream: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs (B, 3, P, P) and targets (B, 3, sP, sP) of a step, float32, [0, 1].

        Args:
            step: Counted from 0.
            stream: Another number gives other patches.
        """
        generator = generator_of(self.settings.seed, step, stream)
        inputs, targets = zip(*(self._patch(generator) for _ in range(self.settings.batch)), strict=True)
        x, y = torch.stack(inputs), torch.stack(targets)
        return (x if self.damage is None else _damaged(x, self.damage, generator)), y

    def _patch(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        def integer(bound: int) -> int:
            return int(torch.randint(bound, (), generator=generator).item())

        pair = self.pairs[integer(len(self.pairs))]
        height, width = pair.source.shape[-2:]
        top, left = integer(height - self.side + 1), integer(width - self.side + 1)
        turn, flip = integer(4), integer(2)  # drawn always, so that places do not depend on the switches

        def cut(picture: torch.Tensor, scale: int) -> torch.Tensor:
            patch = _part(picture, top, left, self.side, self.side, scale).float() / 255
            patch = torch.rot90(patch, turn, (1, 2)) if self.settings.turns else patch
            return (patch.flip(2) if flip and self.settings.flips else patch).contiguous()

        return cut(pair.source, 1), cut(pair.target, pair.scale)


class HeldOut:
    """Pairs that are never trained on; views of them are scored.

    Args:
        pairs: Held out.
        seed: Of the places of views, and of the damage.
        damage: What is done to inputs, once.

    Attributes:
        names: Of the pairs.
        views: Of each pair: inputs (n, 3, h, w) and targets (n, 3, sh, sw), uint8, s the pair's scale.
    """

    def __init__(self, pairs: Sequence[Pair], seed: int, damage: Request | None = None) -> None:
        self.names = [pair.name for pair in pairs]
        count = max(1, min(4, VIEWS // len(pairs)))
        self.views = [_views(pair, count, seed, number, damage) for number, pair in enumerate(pairs)]

    def __len__(self) -> int:
        return len(self.names)


def shrunk(picture: torch.Tensor, scale: int) -> torch.Tensor:
    """A picture at a fraction of its size, as super-resolution is usually trained on it: bicubic, antialiased, 8 bit.

    The kernel is that of MATLAB's ``imresize`` and of Pillow; borders are as Pillow has them.

    Args:
        picture: uint8 (3, H, W).
        scale: How many times smaller; H and W are multiples of it.

    Returns:
        uint8 (3, H / scale, W / scale).
    """
    size = [side // scale for side in picture.shape[-2:]]
    small = F.interpolate(picture[None].float(), size, mode="bicubic", antialias=True, align_corners=False)
    return small[0].round().clamp(0, 255).to(torch.uint8)


def _load(files: datasets.Pair, scale: int) -> Pair:
    try:
        example = PairedSet("pairs", (files,), scale=scale)[0]
    except PairSizeError as error:
        if scale == 1 or files.input is None:
            raise
        height, width = (scale * side for side in read(files.input).rgb.shape[-2:])
        raise PairSizeError(f"{error}; a target of {width}x{height} px is expected for this input") from error
    target = _bytes(example.target)
    if example.input is not None:
        return Pair(files.name, _bytes(example.input), target)
    if scale == 1:
        return Pair(files.name, None, target)
    height, width = (side // scale * scale for side in target.shape[-2:])
    target = target[:, :height, :width].contiguous()
    return Pair(files.name, shrunk(target, scale), target)


def _window(pair: Pair, budget: int, seed: int, number: int) -> Pair:
    """The pair, or as large a window of it as the budget in bytes holds."""
    height, width = pair.source.shape[-2:]
    scale = pair.scale
    share = budget / (3 * (1 + scale**2) * height * width)
    if share >= 1:
        return pair
    rows, columns = (max(VIEW // scale, int(side * share**0.5)) for side in (height, width))
    log.warning("%s: a window of %dx%d px is used, all of it would take too much memory", pair.name, columns, rows)
    (top, left), *_ = _places(height, width, rows, columns, 1, generator_of(seed, number, _WINDOW, 0))

    def cut(picture: torch.Tensor, scale: int) -> torch.Tensor:
        return _part(picture, top, left, rows, columns, scale).clone()

    return Pair(pair.name, None if pair.input is None else cut(pair.input, 1), cut(pair.target, scale))


def _views(pair: Pair, count: int, seed: int, number: int, damage: Request | None) -> tuple[torch.Tensor, torch.Tensor]:
    height, width = pair.source.shape[-2:]
    side = VIEW // pair.scale
    if max(height, width) <= side:
        count = 1
    places = _places(height, width, side, side, count, generator_of(seed, number, _VIEW, 0))

    def cut(picture: torch.Tensor, scale: int) -> torch.Tensor:
        return torch.stack([_part(picture, top, left, side, side, scale) for top, left in places])

    inputs, targets = cut(pair.source, 1), cut(pair.target, pair.scale)
    if damage is not None:
        inputs = _bytes(_damaged(inputs.float() / 255, damage, generator_of(seed, number, _DAMAGE, 0)))
    return inputs, targets


def _part(picture: torch.Tensor, top: int, left: int, rows: int, columns: int, scale: int) -> torch.Tensor:
    """A window of a picture (3, H, W), whose place and size are given in pixels that are ``scale`` times larger."""
    return picture[:, top * scale : (top + rows) * scale, left * scale : (left + columns) * scale]


def _places(
    height: int, width: int, rows: int, columns: int, count: int, generator: torch.Generator
) -> list[tuple[int, int]]:
    """Top left corners of random windows."""
    tops = torch.randint(max(0, height - rows) + 1, (count,), generator=generator).tolist()
    lefts = torch.randint(max(0, width - columns) + 1, (count,), generator=generator).tolist()
    return list(zip(tops, lefts, strict=True))


def _damaged(clean: torch.Tensor, damage: Request, generator: torch.Generator) -> torch.Tensor:
    """Damage a batch, each picture with parameters of its own, as an 8-bit file would hold it."""
    return degrade.quantise(degrade.apply(clean, [damage.sample(generator) for _ in clean]))


def _bytes(picture: torch.Tensor) -> torch.Tensor:
    return (picture * 255).round().to(torch.uint8)
