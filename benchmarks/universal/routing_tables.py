"""The tables of routing: every way of choosing an expert, on the same pictures."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from routing_pictures import CROP, RANGES, SETS, SETTINGS, WHOLE, Seen, Setting

from moir.base.names import TYPES
from moir.universal.compact_tree import CompactUniRestorer
from moir.universal.router import Route, Router

LEAST = 0.05
"""dB: where an oracle gains less, a share of it says nothing."""
DRAWS = 2000
"""Of the bootstrap."""
HARM = 1.0
"""dB below the damaged picture, from which on a result counts as harm."""
AGAINST = ("coarsest", "finest", "router alone", "control")
"""Ways that auto mode is compared with, photograph by photograph."""
HARD_TO_SEE = {"haze", "lowlight"}
"""Damage of which the picture does not show how bright or colourful the original was."""

Choice = Callable[[Seen, Route, Setting], torch.Tensor]
"""The PSNR, (N,), that a way of choosing reaches on the pictures of a setting."""


def agreed(network: CompactUniRestorer, seen: Seen, route: Route) -> Route:
    """The router's choice where the estimate agrees with it, and what auto mode does instead where it does not."""
    return network.agreement.agreed(seen.presence, route)


def told_place(
    network: CompactUniRestorer, route: Route, types: tuple[str, ...]
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Leaf and level where an instruction leads; None: there are none for it."""
    nothing = torch.zeros(len(network.tree.leaves), dtype=torch.bool)
    return network.agreement.told_place(route.leaf_logits, route.level_logits, types, nothing)


def ways(network: CompactUniRestorer) -> dict[str, Choice]:
    """Every way of choosing an expert, by its name."""
    tree, table = network.tree, network.tree.table()

    def at(expert: Callable[[Route], torch.Tensor]) -> Choice:
        return lambda seen, route, _: seen.psnr(expert(route))

    def oracle(seen: Seen, route: Route, setting: Setting) -> torch.Tensor:
        return seen.outcomes.psnr.amax(1)

    def of_setting(seen: Seen, route: Route, setting: Setting) -> torch.Tensor:
        return seen.outcomes.psnr[:, seen.outcomes.psnr.mean(0).argmax()]

    def random(seen: Seen, route: Route, setting: Setting) -> torch.Tensor:
        return seen.outcomes.psnr[:, table].mean((1, 2))  # the expectation over a random leaf and a random level

    return {
        "coarsest": at(lambda route: torch.zeros_like(route.leaf)),
        "by type": at(lambda route: table[route.leaf, torch.ones_like(route.leaf)]),
        "finest": at(lambda route: table[route.leaf, torch.full_like(route.leaf, len(tree.levels) - 1)]),
        "router alone": at(lambda route: table[route.leaf, route.level]),
        "auto": lambda seen, route, setting: seen.auto,
        "told": lambda seen, route, setting: seen.told,
        "random": random,
        "of setting": of_setting,
        "oracle": oracle,
    }


def tables(
    network: CompactUniRestorer, found: Mapping[Setting, Seen], control: Mapping[Setting, torch.Tensor] | None = None
) -> list[str]:
    """A table for each range, with a row for each setting, as lines of Markdown.

    Args:
        network: The assembled tree.
        found: The pictures of all settings.
        control: PSNR (N,) of the control on the same pictures, if there is one.
    """
    choices, router = ways(network), router_of(network)
    if control is not None:
        choices["control"] = lambda seen, route, setting: control[setting]
    count = len(next(iter(found.values())).points)
    lines = [
        f"Protocol: {count} photographs of {', '.join(SETS)}, one draw of each setting, decision on at most {WHOLE} "
        f"px, centre {CROP} px scored, PSNR over RGB (dB), mean. `auto` and `told` are what a user gets who says "
        "nothing, or which damage is there, in float32; in all other columns experts restore as if the damage were "
        "certain, in bf16 where that is fast. "
        "`random` is the expectation over a random leaf and level; `of setting` takes one expert for all pictures of a "
        "setting, the best in their mean, so it knows the damage and not the picture; `oracle` takes the best expert "
        "of each picture, which nobody can know. The last line is how many of the pictures come out worse than they "
        f"went in by more than {HARM:g} dB (of `random`, in the expectation of each)."
        + (" `control` is the shared network, trained on by itself." if control is not None else ""),
        "",
    ]
    for where, title in RANGES.items():
        lines += [f"## {title.capitalize()}", "", *header(["setting", "input", *choices])]
        sums: list[list[float]] = []
        rows: list[torch.Tensor] = []
        for setting in (s for s in SETTINGS if s.range == where):
            seen = found[setting]
            route = router(seen.points)
            before = -10 * seen.outcomes.before.log10()
            reached = torch.stack([before, *(choose(seen, route, setting) for choose in choices.values())])
            rows.append(reached)
            sums.append(reached.mean(1).tolist())
            lines.append(row([setting.name, *(f"{value:.2f}" for value in sums[-1])]))
        for name, part in (("mean of 7 single", sums[:7]), ("mean of 7 mixed", sums[7:]), ("mean of 14", sums)):
            lines.append(row([f"**{name}**", *(f"**{value:.2f}**" for value in np.mean(part, 0))]))
        shares = torch.stack([reached < reached[:1] - HARM for reached in rows]).float().mean((0, 2)).tolist()
        lines.append(row([f"lose more than {HARM:g} dB", *(f"{share:.1%}" for share in shares)]))
        lines += [
            "",
            f"Auto mode less other ways, with the standard error over photographs: {ahead(rows, choices)}.",
            "",
        ]
    return lines


def ahead(reached: Sequence[torch.Tensor], names: Iterable[str]) -> str:
    """How far auto mode is ahead of others in the mean of all settings, dB, in words.

    Args:
        reached: For each setting (1 + ways, N): PSNR before, and by each way.
        names: Of the ways.
    """
    by_photograph = dict(zip(names, torch.stack(list(reached)).mean(0)[1:], strict=True))
    words = []
    for name in AGAINST:
        if name in by_photograph:
            gain = by_photograph["auto"] - by_photograph[name]
            words.append(f"{name} {float(gain.mean()):+.2f} ± {float(gain.std() / len(gain) ** 0.5):.2f}")
    return ", ".join(words)


def wrong_instructions(network: CompactUniRestorer, found: Mapping[Setting, Seen]) -> list[str]:
    """What it does to pictures to be told to remove damage that is not there, as lines of Markdown."""
    table, router = network.tree.table(), router_of(network)
    lines = [
        "## Told to remove what is not there",
        "",
        "Each type in turn, on the pictures of all settings without it, in and out of distribution: the mean change of "
        "PSNR against the damaged picture as it is (0: no harm, no gain), and against what auto mode makes of it.",
        "",
        *header(
            [
                "told",
                "n",
                "change, mean",
                "worst setting",
                "its mean",
                f"lose more than {HARM:g} dB",
                "less than auto, mean",
            ]
        ),
    ]
    for type_ in TYPES:
        changes: dict[str, torch.Tensor] = {}
        against: list[torch.Tensor] = []
        for setting, seen in found.items():
            if type_ in setting.types:
                continue
            route = router(seen.points)
            place = told_place(network, route, (type_,))
            assert place is not None, f"no leaf is for {type_}"
            reached = seen.psnr(table[place])
            changes[f"{setting.name} ({setting.range})"] = reached + 10 * seen.outcomes.before.log10()
            against.append(reached - seen.auto)
        every = torch.cat(list(changes.values()))
        worst = min(changes, key=lambda name: float(changes[name].mean()))
        lines.append(
            row(
                [
                    type_,
                    str(len(every)),
                    f"{float(every.mean()):+.2f}",
                    worst,
                    f"{float(changes[worst].mean()):+.2f}",
                    f"{float((every < -HARM).float().mean()):.0%}",
                    f"{float(torch.cat(against).mean()):+.2f}",
                ]
            )
        )
    return [*lines, ""]


def share_of_oracle(network: CompactUniRestorer, found: Mapping[Setting, Seen]) -> list[str]:
    """How much of what the best expert would gain auto mode reaches, as lines of Markdown."""
    choices, router = ways(network), router_of(network)
    gains: dict[Setting, list[float]] = {}
    for setting, seen in found.items():
        route = router(seen.points)
        coarsest, *others = (choices[way](seen, route, setting) for way in ("coarsest", "auto", "of setting", "oracle"))
        gains[setting] = [float((psnr - coarsest).mean()) for psnr in others]

    def cells(wanted: Callable[[Setting], bool]) -> list[str]:
        out = []
        for ranges in (*((where,) for where in RANGES), tuple(RANGES)):
            auto, *best = np.mean([gains[s] for s in SETTINGS if s.range in ranges and wanted(s)], 0)
            out.append(f"{auto:+.2f}")
            out += [f"{gain:+.2f} ({auto / gain:.0%})" if gain >= LEAST else f"{gain:+.2f} (-)" for gain in best]
        return out

    names = list(dict.fromkeys(setting.name for setting in SETTINGS))
    parts: dict[str, Callable[[Setting], bool]] = {
        "mean of 7 single": lambda s: s.is_single,
        "mean of 7 mixed": lambda s: not s.is_single,
        "mean of 14": lambda s: True,
        "mean of those without haze and low light": lambda s: not HARD_TO_SEE & set(s.types),
    }
    places = (*RANGES.values(), "both")
    return [
        "## How much of the oracle's gain is reached",
        "",
        "Gain over the coarsest expert, dB, and in brackets how much of that auto mode reaches. `of setting` knows the "
        "damage. `oracle` knows the original, and with it how bright and colourful it was: after haze or darkness much "
        "of its gain is that, which no picture shows. The last line leaves out every setting with one of them (all "
        "mixes have haze). What the gain would be after the best brightness and colour of each result cannot be told "
        "from a table of errors.",
        "",
        *header(["setting", *(f"{way}, {where}" for where in places for way in ("auto", "of setting", "oracle"))]),
        *(row([name, *cells(lambda s, name=name: s.name == name)]) for name in names),
        *(row([f"**{name}**", *(f"**{cell}**" for cell in cells(wanted))]) for name, wanted in parts.items()),
        "",
        f"With {DRAWS:,} other draws of as many of these pictures (bootstrap; a picture is drawn for all settings at "
        "once), 95% of the shares of `of setting` that auto mode reaches lie between "
        + "; ".join(f"{low:.0%} and {high:.0%} ({place})" for place, (low, high) in intervals(network, found).items())
        + ".",
        "",
    ]


def intervals(network: CompactUniRestorer, found: Mapping[Setting, Seen]) -> dict[str, tuple[float, float]]:
    """Between what 95% of the shares of the oracle that knows the damage lie, by range, if other pictures are drawn."""
    choices, router = ways(network), router_of(network)
    count = len(next(iter(found.values())).points)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(count, (DRAWS, count), generator=generator)
    weight = torch.nn.functional.one_hot(drawn, count).float().mean(1)  # (draws, pictures)
    auto, best = dict[Setting, torch.Tensor](), dict[Setting, torch.Tensor]()
    for setting, seen in found.items():
        coarsest = choices["coarsest"](seen, router(seen.points), setting)
        auto[setting] = weight @ (seen.auto - coarsest)
        best[setting] = (weight @ (seen.outcomes.psnr - coarsest[:, None])).amax(1)
    out = {}
    for place, ranges in (*((title, (where,)) for where, title in RANGES.items()), ("both", tuple(RANGES))):
        own = [setting for setting in found if setting.range in ranges]
        gains = (torch.stack([gain[setting] for setting in own]).mean(0) for gain in (auto, best))
        share = torch.div(*gains)
        low, high = share.quantile(torch.tensor([0.025, 0.975])).tolist()
        out[place] = (low, high)
    return out


def router_of(network: CompactUniRestorer) -> Router:
    """The network's router alone, which works on tables."""
    router = Router(network.extractor.features, len(network.tree.leaves), len(network.tree.levels))
    own = network.state_dict()
    router.load_state_dict({name: own[name] for name in router.state_dict()})
    return router.eval().requires_grad_(False)


def header(cells: Sequence[str]) -> list[str]:
    """The first two lines of a table in Markdown."""
    return [row(cells), row(["---"] * len(cells))]


def row(cells: Sequence[str]) -> str:
    """One line of a table in Markdown."""
    return "| " + " | ".join(cells) + " |"
