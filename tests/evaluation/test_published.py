"""The published numbers: complete, mapped to our settings, and consistent where the papers are."""

from collections import Counter

import pytest

from moir.datasets.benchmarks import BENCHMARKS, GROUPS
from moir.evaluation import published

PROTOCOLS = {"moce_ir", "promptir", "adaptir", "unirestorer", None}


def cell(table, method, setting):
    (row,) = [r for r in published.rows(setting) if r.table.name == table and r.method == method]
    return row


def test_every_row_is_sane():
    for row in published.every_row():
        assert 5 < row.psnr < 50, row
        assert row.ssim is None or 0.1 < row.ssim < 1, row
        assert row.protocol in PROTOCOLS, row
        assert all((row.method, row.setting, row.printed)), row
    assert len(published.every_row()) == 679


def test_no_number_stands_twice():
    places = Counter((row.table.name, row.method, row.printed) for row in published.every_row())
    assert [place for place, times in places.items() if times > 1] == []


def test_every_table_has_rows_and_a_source():
    used = {row.table.name for row in published.every_row()}
    assert used == set(published.tables())
    assert all(table.source and table.title for table in published.tables().values())


def test_names_without_a_benchmark_keep_the_papers_name():
    for row in published.every_row():
        if row.setting not in BENCHMARKS and row.setting not in GROUPS:
            assert row.setting == row.printed, row
    assert "BSD68" in published.settings()


@pytest.mark.parametrize("group", ["aio3", "aio5", "cdd11", "mixed", "mixed_out", "real", "lr4_noise30"])
def test_every_setting_of_the_papers_groups_has_numbers(group):
    assert [name for name in GROUPS[group] if not published.rows(name)] == []


def test_known_numbers():
    # Fact sheets of the papers.
    assert (cell("aio3", "MoCE-IR-S", "cbsd68_s50").psnr, cell("aio3", "MoCE-IR-S", "cbsd68_s50").ssim) == (
        28.16,
        0.798,
    )
    assert cell("unirestorer_mixed_out", "UniRestorer", "mixed_out_ll_h_n_b_r").psnr == 17.49
    assert cell("unirestorer_single_task", "NAFNet", "live1_q30").ssim == 0.943
    assert cell("adaptir_lr4_noise30", "AdaptIR", "set5_lr4_noise30").protocol == "adaptir"
    assert cell("cdd11", "MoCE-IR-S", "cdd11_low_haze_snow").psnr == 25.39
    assert published.rows("set5_sr_2") == []


def test_what_does_not_fit_is_marked():
    suspect = {(row.table.name, row.method, row.printed) for row in published.every_row() if row.suspect}
    assert {
        ("adaptir_lr4_noise30", "AdaptIR", "BSDS100"),
        ("adaptir_lr4_noise30", "AdaptIR", "Urban100"),
        ("unirestorer_mixed_out", "Restormer", "H-N-R"),
        ("moce_ir_jittor", "MoCE-IR-S", "BSD68 sigma=50"),
    } <= suspect


@pytest.mark.parametrize("table", ["aio3", "aio5", "cdd11"])
def test_averages_of_the_collected_tables_recompute(table):
    rows = [row for row in published.every_row() if row.table.name == table]
    checked = 0
    for average in [row for row in rows if row.setting == table]:
        parts = [row.psnr for row in rows if row.method == average.method and row.setting != table]
        if len(parts) == len(GROUPS[table]):
            assert sum(parts) / len(parts) == pytest.approx(average.psnr, abs=0.0101), average.method
            checked += 1
    assert checked >= 1


def test_averages_of_unirestorer_are_over_pictures():
    # As the caution of the table says: 100 of Rain100L, 500 of SOTS, 68 of BSD68.
    rows = [row for row in published.every_row() if row.table.name == "unirestorer_single"]
    weights = {"Rain100L": 100, "SOTS": 500, "BSD68": 68}
    averages = [row for row in rows if row.printed == "average 3D"]
    for average in averages:
        parts = {r.printed: r.psnr for r in rows if r.method == average.method and r.printed in weights}
        mean = sum(parts[name] * n for name, n in weights.items()) / sum(weights.values())
        assert mean == pytest.approx(average.psnr, abs=0.015), average.method
    assert len(averages) == 15


def test_costs():
    cost = next(c for c in published.costs() if c.method == "MoCE-IR-S")
    assert (cost.gflops, cost.memory_mb, cost.seconds) == (37.0, 4263.0, None)
    assert all(c.conditions and c.source for c in published.costs())
