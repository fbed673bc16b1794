"""A whole evaluation: every method on every picture of every setting, interrupted or not."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from moir.base.errors import InvalidValueError, MoirError
from moir.base.names import check_name
from moir.datasets import Pair
from moir.evaluation.journal import Journal, key_of
from moir.evaluation.methods import Method, Predictions
from moir.evaluation.noise import Drawing, NoiseSource
from moir.evaluation.protocols import PROTOCOLS, Protocol
from moir.evaluation.provenance import Hashes, account_of, versions
from moir.evaluation.records import Evaluation, ImageScore, Summary
from moir.evaluation.scoring import Scored, score, summarise
from moir.evaluation.settings import Sample, Setting, fingerprint
from moir.metrics.lpips import lpips_network

Scorable = Method | Predictions


@dataclass(frozen=True)
class Options:
    """What a run is asked for, besides methods and settings.

    Attributes:
        protocol: How to score.
        noise: How the noise of benchmarks is drawn; see :class:`moir.evaluation.noise.NoiseSource`.
        seed: Of all damage made here.
        limit: At most so many pictures of each setting, the first ones; None: all.
        exclude: Pictures to leave out: ``NAME``, or ``SETTING/NAME`` or ``SOURCE/NAME`` for one set only.
        perceptual: LPIPS too.
        jobs: Pictures at a time.
    """

    protocol: Protocol = PROTOCOLS["moce_ir"]
    noise: Drawing = "per-image"
    seed: int = 0
    limit: int | None = None
    exclude: tuple[str, ...] = ()
    perceptual: bool = False
    jobs: int = 1

    def __post_init__(self) -> None:
        check_name(self.noise, get_args(Drawing), "way to draw noise")
        if self.limit is not None and self.limit < 1:
            raise InvalidValueError(f"limit {self.limit} leaves no picture; give 1 at least, or none for all")
        if self.jobs < 1:
            raise InvalidValueError(f"jobs {self.jobs} is not possible; give 1 at least")


@dataclass(frozen=True)
class Step:
    """One picture done.

    Attributes:
        method: Name of the method.
        setting: The setting.
        score: The score, or what went wrong.
        resumed: It was scored by an earlier run.
        sample, restored: The pictures; None where they were not at hand.
    """

    method: str
    setting: Setting
    score: ImageScore
    resumed: bool = False
    sample: Sample | None = None
    restored: torch.Tensor | None = None


def evaluate(
    methods: Sequence[Scorable],
    settings: Sequence[Setting],
    options: Options = Options(),
    *,
    journal: Path | None = None,
    missing: Sequence[tuple[str, str]] = (),
    on_step: Callable[[Step], None] | None = None,
) -> list[Evaluation]:
    """Score methods on settings.

    A picture that cannot be read, restored or scored is counted as failed, with the reason; the others are done.

    Args:
        methods: Models, baselines, predictions; each picture is damaged once for all of them.
        settings: What to score them on.
        options: The rest.
        journal: A file that scores are appended to as they are made, and taken from if they are there already.
        missing: Settings that cannot be run, with the reason; they appear in the summaries.
        on_step: Called after every picture, in the order of completion, from the calling thread.

    Returns:
        One evaluation for each method, in order.

    Raises:
        InvalidValueError: No method, or two of one name, or two settings of one name.
        MissingExtraError: A method, or LPIPS, needs a package that is not installed.
    """
    _check_names("method", [m.name for m in methods])
    _check_names("setting", [s.name for s in settings])
    if options.perceptual:
        lpips_network()  # fails at once if it is not there
    run = _Run(methods, settings, options, journal, on_step)
    run.alone = len(settings) + len(missing) == 1
    with ThreadPoolExecutor(options.jobs) as pool:
        for setting in settings:
            run.do(setting, pool)
    return run.evaluations(missing)


def chosen(setting: Setting, options: Options) -> list[Pair]:
    """The pairs of a setting that are asked for."""
    out = set(options.exclude)

    def kept(pair: Pair) -> bool:
        names = {pair.name, *(f"{place}/{pair.name}" for place in (setting.name, setting.source))}
        return not out & names

    return [pair for pair in setting.files.pairs if kept(pair)][: options.limit]


def _check_names(what: str, names: Sequence[str]) -> None:
    if not names and what == "method":
        raise InvalidValueError("nothing to score; give a method")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InvalidValueError(f"two {what}s are named {', '.join(sorted(twice))}; give each a name of its own")


class _Run:
    def __init__(
        self,
        methods: Sequence[Scorable],
        settings: Sequence[Setting],
        options: Options,
        journal: Path | None,
        on_step: Callable[[Step], None] | None,
    ) -> None:
        self.methods, self.settings, self.options = methods, settings, options
        self.journal = Journal(journal)
        self.on_step = on_step or (lambda step: None)
        self.alone = len(settings) == 1
        self.noise = NoiseSource(options.noise, options.seed)
        self.hashes, self.versions = Hashes(), versions()
        self.accounts = [account_of(method, self.hashes) for method in methods]
        self.files: list[dict[str, str]] = [{} for _ in methods]
        self.scores: list[dict[str, list[ImageScore]]] = [{s.name: [] for s in settings} for _ in methods]

    def do(self, setting: Setting, pool: ThreadPoolExecutor) -> None:
        """One setting: samples are made here, in order; restoring and scoring may run in threads."""
        pairs = chosen(setting, self.options)
        order = {pair.name: number for number, pair in enumerate(pairs)}
        waiting: deque[tuple[int, str, Sample, Future[Scored]]] = deque()
        try:
            for pair in pairs:
                keys, todo = self._keys(setting, pair), []
                for number, key in enumerate(keys):
                    known = self.journal.find(key)
                    if known is None:
                        todo.append(number)
                    else:
                        self._take(number, setting, Step(self.methods[number].name, setting, known, resumed=True))
                # The published stream of noise runs on through pictures that were scored before.
                if not todo and self.options.noise == "per-image":
                    continue
                try:
                    sample = setting.sample(pair, self.options.protocol, self.noise)
                except MoirError as error:
                    for number in todo:
                        failed = ImageScore(setting.name, pair.name, 0, 0, error=str(error))
                        self._add(number, keys[number], setting, failed)
                    continue
                for number in todo:
                    while len(waiting) >= self.options.jobs:
                        self._finish(setting, *waiting.popleft())
                    future = pool.submit(self._score, self.methods[number], setting, sample)
                    waiting.append((number, keys[number], sample, future))
            while waiting:
                self._finish(setting, *waiting.popleft())
        finally:
            for _, _, _, future in waiting:
                future.cancel()
        for scores in self.scores:
            scores[setting.name].sort(key=lambda s: order[s.image])

    def evaluations(self, missing: Sequence[tuple[str, str]]) -> list[Evaluation]:
        found = []
        absent = tuple(Summary(name, 0, 0, {}, {}, error=why) for name, why in missing)
        for number, method in enumerate(self.methods):
            scores = self.scores[number]
            summaries = tuple(
                summarise(s, scores[s.name], limited=len(chosen(s, self.options)) < len(s)) for s in self.settings
            )
            images = tuple(score for s in self.settings for score in scores[s.name])
            found.append(
                Evaluation(
                    method.name,
                    self.options.protocol.name,
                    (*summaries, *absent),
                    images,
                    None,
                    self._provenance(number),
                )
            )
        return found

    def _score(self, method: Scorable, setting: Setting, sample: Sample) -> Scored:
        fetch = None
        if isinstance(method, Predictions):
            predictions = method

            def fetch() -> torch.Tensor:
                return predictions.read(predictions.find(setting.name, sample.name, alone=self.alone))

        return score(
            method, setting, sample, self.options.protocol, perceptual=self.options.perceptual, prediction=fetch
        )

    def _finish(self, setting: Setting, number: int, key: str, sample: Sample, future: Future[Scored]) -> None:
        scored = future.result()
        self._add(number, key, setting, scored.score, sample, scored.restored)

    def _add(
        self,
        number: int,
        key: str,
        setting: Setting,
        score: ImageScore,
        sample: Sample | None = None,
        restored: torch.Tensor | None = None,
    ) -> None:
        name = self.methods[number].name
        damage = list(sample.damage) if sample is not None else []
        self.journal.add(key, score, method=name, protocol=self.options.protocol.name, damage=damage)
        self._take(number, setting, Step(name, setting, score, sample=sample, restored=restored))

    def _take(self, number: int, setting: Setting, step: Step) -> None:
        self.scores[number][setting.name].append(step.score)
        self.on_step(step)

    def _keys(self, setting: Setting, pair: Pair) -> list[str]:
        """One key for each method; the files that a score depends on are noted on the way."""
        own = {str(path): self.hashes.of(path) for path in (pair.input, pair.target) if path is not None}
        # Other parameters than last time, where a type of damage is drawn differently now, are another picture.
        drawn = [params.to_json() for params in setting.drawn(pair.name, self.options.seed)]
        options, keys = self.options, []
        # With the published drawing, noise depends on all that came before.
        before = [s.name for s in self.settings] if options.noise == "published" else []
        rest = [options.limit, list(options.exclude)] if options.noise == "published" else []
        for number, method in enumerate(self.methods):
            files = dict(own)
            if isinstance(method, Predictions):
                try:
                    found = method.find(setting.name, pair.name, alone=self.alone)
                    files[str(found)] = self.hashes.of(found)
                except MoirError:
                    pass  # said when it is scored
            self.files[number].update(files)
            account = self.accounts[number]
            parts: list[Any] = [
                self.versions,
                [account["name"], account["kind"], account.get("options"), sorted(account["files"].values())],
                options.protocol.to_json(),
                [fingerprint(setting), pair.name, list(files.values()), drawn],
                [options.noise, options.seed, options.perceptual, before, rest],
            ]
            keys.append(key_of(*parts))
        return keys

    def _provenance(self, number: int) -> dict[str, Any]:
        options = self.options
        return {
            "method": self.accounts[number],
            "protocol": options.protocol.to_json(),
            "noise": options.noise,
            "seed": options.seed,
            "limit": options.limit,
            "exclude": list(options.exclude),
            "lpips": options.perceptual,
            "settings": [
                {"name": s.name, "source": s.source, "made": s.made, "pictures": len(s), "types": list(s.types)}
                for s in self.settings
            ],
            "versions": self.versions,
            "files": dict(sorted({**self.accounts[number]["files"], **self.files[number]}.items())),
        }
