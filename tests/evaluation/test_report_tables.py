"""Tables from made-up records. No number here was measured."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moir.base.errors import InvalidValueError
from moir.evaluation.records import Cost, Evaluation, ImageScore, Summary
from moir.evaluation.report.details import long_markdown
from moir.evaluation.report.intervals import mean_interval
from moir.evaluation.report.lines import INPUT, blocks
from moir.evaluation.report.tables import escape_latex, latex, markdown

AIO3 = {"sots": 500, "rain100l": 100, "cbsd68_s15": 68, "cbsd68_s25": 68, "cbsd68_s50": 68}


def made_up(method, means, *, n=None, failed=0, protocol="moce_ir", cost=None):
    counts = n or dict.fromkeys(means, 3)
    summaries, images = [], []
    for setting, psnr in means.items():
        values = {"psnr": psnr, "ssim": 0.5, "input_psnr": 10.0}
        summaries.append(Summary(setting, counts[setting], failed, values, {"psnr": (psnr - 1, psnr + 1)}))
        images += [ImageScore(setting, f"{i}.png", 8, 8, {**values, "psnr": psnr + i - 1}) for i in range(3)]
        images += [ImageScore(setting, "bad.png", 8, 8, error="it is | broken")] * failed
    return Evaluation(method, protocol, tuple(summaries), tuple(images), cost, {})


def line(block, method):
    (found,) = [one for one in block.lines if one.method == method]
    return found


def row(text, method):
    (found,) = [part for part in text.splitlines() if part.startswith(f"| {method} ")]
    return [part.strip() for part in re.split(r"(?<!\\)\|", found)[1:-1]]


def test_interval_of_a_known_distribution():
    values = np.random.default_rng(3).normal(30, 2, 400)
    low, high = mean_interval(values)
    # The normal approximation is close for 400 values.
    half = 1.96 * values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)
    assert mean_interval(values) == (low, high) != mean_interval(values, seed=1)


@settings(max_examples=20)
@given(st.lists(st.floats(-50, 50), min_size=2, max_size=12))
def test_interval_lies_inside_the_values(values):
    low, high = mean_interval(values)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


@pytest.mark.parametrize("values", [[], [1.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_no_interval(values):
    with pytest.raises(InvalidValueError):
        mean_interval(values)


def test_input_comes_first_and_average_needs_all_settings():
    whole = made_up("whole", {"sots": 20.0, "rain100l": 30.0})
    part = made_up("part", {"sots": 25.0})
    (block,) = blocks([whole, part], with_published=False)
    assert [one.method for one in block.lines] == [INPUT, "whole", "part"]
    assert line(block, "whole").average.values["psnr"] == 25.0
    assert line(block, "part").average is None
    assert line(block, INPUT).cells["sots"].values == {"psnr": 10.0}


def test_best_is_bold_only_among_the_same_number_of_pictures():
    full = made_up("full", {"sots": 20.0}, n={"sots": 500})
    few = made_up("few", {"sots": 30.0}, n={"sots": 5})
    text = markdown([full, few], with_published=False)
    assert row(text, "full")[3] == "**20.00** / 0.500"
    assert row(text, "few")[3] == "30.00 / 0.500 (n=5)"


def test_equal_numbers_are_both_bold():
    text = markdown([made_up("a", {"sots": 20.001}), made_up("b", {"sots": 20.002})], with_published=False)
    assert "**20.00**" in row(text, "a")[3]
    assert "**20.00**" in row(text, "b")[3]


def test_published_numbers_of_the_same_protocol_compete_on_whole_sets_only():
    weak = made_up("weak", dict.fromkeys(AIO3, 20.0), n=AIO3)
    (block,) = blocks([weak])
    moce = next(one for one in block.lines if one.method == "MoCE-IR" and one.table == "aio3")
    assert moce.cells["rain100l"].best == {"psnr", "ssim"}
    assert moce.average.values["psnr"] == 32.73
    (block,) = blocks([made_up("few", dict.fromkeys(AIO3, 20.0))])
    moce = next(one for one in block.lines if one.method == "MoCE-IR" and one.table == "aio3")
    assert not any(cell.best for cell in moce.cells.values())
    assert "psnr" in line(block, "few").cells["rain100l"].best


def test_published_numbers_of_other_protocols_are_in_brackets_with_a_source():
    text = markdown([made_up("ours", dict.fromkeys(AIO3, 40.0), n=AIO3)])
    cells = row(text, "UniProcessor")
    assert re.fullmatch(r"aio3 \[\d+\]", cells[1])
    assert cells[2] == "not stated"
    assert cells[3] == "(31.66 / 0.979)"
    number = cells[1].split()[1]
    assert re.search(rf"^- {re.escape(number)} AIO-3, .*MoCE-IR", text, re.MULTILINE)
    assert "**40.00**" in row(text, "ours")[3]


def test_mixed_settings_are_other_pictures_than_the_papers():
    (block,) = blocks([made_up("ours", {"mixed_h_r": 1.0}, n={"mixed_h_r": 100}, protocol="unirestorer")])
    theirs = line(block, "UniRestorer").cells["mixed_h_r"]
    assert (theirs.values["psnr"], theirs.comparable, theirs.best) == (29.63, False, set())


def test_a_table_for_each_protocol_and_family():
    many = dict.fromkeys([*AIO3, "mixed_h_r", "mixed_h_n", "mixed_h_n_r", "mixed_out_h_r"], 20.0)
    found = blocks([made_up("a", many), made_up("a", {"sots": 1.0}, protocol="promptir")])
    assert [(b.protocol, len(b.counts)) for b in found] == [
        ("moce_ir", 5),
        ("moce_ir", 3),
        ("moce_ir", 1),
        ("promptir", 1),
    ]


def test_costs_stand_beside_and_their_place_is_said():
    cost = Cost(1_234_567, 4_500_000_000, (256, 320), 120.4, 0.0451, "cpu", "bf16")
    text = markdown([made_up("a", {"sots": 20.0}, cost=cost), made_up("b", {"sots": 20.0})], with_published=False)
    assert row(text, "a")[-4:] == ["1.23M", "4.50", "120", "0.045"]
    assert row(text, "b")[-4:] == ["–"] * 4
    assert "Cost of one picture of 256x320, cpu, bf16." in text
    other = Cost(None, None, (64, 64), None, 1.0, "cuda", "float32")
    text = markdown(
        [made_up("a", {"sots": 20.0}, cost=cost), made_up("b", {"sots": 20.0}, cost=other)], with_published=False
    )
    assert row(text, "b")[-1] == "64x64, cuda, float32"


def test_failed_pictures_are_counted_and_listed():
    bad = made_up("a", {"sots": 20.0}, failed=2)
    assert row(markdown([bad], with_published=False), "a")[3].endswith("(2 failed)")
    text = long_markdown([bad])
    assert text.count(r"- a, moce_ir, sots, bad.png: it is \| broken") == 2


def test_a_setting_that_could_not_be_run_is_named():
    found = made_up("a", {"sots": 20.0})
    gone = Summary("gopro", 0, 0, {}, {}, error="no folder GoPro")
    one = Evaluation("a", "moce_ir", (*found.summaries, gone), found.images, None, {})
    assert [list(block.counts) for block in blocks([one])] == [["sots"]]
    assert "- a, moce_ir, gopro: no folder GoPro" in long_markdown([one])
    nothing = Evaluation("a", "moce_ir", (gone,), (), None, {})
    assert blocks([nothing]) == []
    assert "gopro" in markdown([nothing]) + long_markdown([nothing])
    assert latex([nothing]).startswith("%")


def test_the_long_table_gives_gain_and_intervals():
    text = long_markdown([made_up("a", {"sots": 20.0})])
    cells = [part.strip() for part in text.splitlines()[8].split("|")[1:-1]]
    assert cells[:4] == ["sots", "a", "3", "0"]
    # Gains of 9, 10 and 11 dB: of three pictures drawn with replacement the ends of the interval are 9 and 11.
    assert cells[4] == "+10.00 [+9.00, +11.00]"
    assert cells[5:] == ["20.000 [19.000, 21.000]", "0.5000"]


def test_text_is_escaped():
    name = "a|b_*c* 50% & #1 {x} $y$ ~ ^ \\"
    evaluation = made_up(name, {"sots": 20.0})
    lines = markdown([evaluation], with_published=False).splitlines()
    table = [part for part in lines if part.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", part)) for part in table}) == 1
    assert r"a\|b\_\*c\*" in table[-1]
    text = latex([evaluation], with_published=False)
    assert escape_latex(name) in text
    assert escape_latex("50% & #1 {x} $y$") == r"50\% \& \#1 \{x\} \$y\$"


def test_latex_rows_have_one_cell_for_each_column_and_braces_match():
    cost = Cost(10, 10, (8, 8), 1.0, 1.0, "cpu", "bf16")
    text = latex([made_up("[a]", dict.fromkeys(AIO3, 20.0), n=AIO3, cost=cost)])
    columns = re.search(r"\\begin\{tabular\}\{([lc]+)\}", text)[1]
    rows = [part for part in text.splitlines() if part.endswith(r"\\")]
    assert len(rows) > 30
    assert {len(re.findall(r"(?<!\\)&", part)) + 1 for part in rows} == {len(columns)}
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert not [part for part in rows if part.startswith("[")]
    assert all(ord(character) < 128 for character in text)


def test_the_same_records_give_the_same_text():
    def make():
        return [made_up("a", dict.fromkeys(AIO3, 20.0), n=AIO3), made_up("b", {"sots": 21.0}, failed=1)]

    assert markdown(make()) == markdown(make())
    assert latex(make()) == latex(make())
    assert long_markdown(make()) == long_markdown(make())
