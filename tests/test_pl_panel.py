"""The table of methods and metrics: numbers printed, better always the same colour, what is missing said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

import spanmf as sn
from spanmf.pl._metric_panel import COLORS, read_panel


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture
def table() -> pd.DataFrame:
    """Three methods; CHAOS is better when lower, edge agreement when higher; one value is missing with its reason."""
    rows = [
        ("nmf", "all", "chaos", 0.012, "lower", ""),
        ("snmf", "all", "chaos", 0.008, "lower", ""),
        ("hsnmf", "all", "chaos", 0.004, "lower", ""),
        ("nmf", "all", "edge_agreement", 0.4, "higher", ""),
        ("snmf", "all", "edge_agreement", 0.5, "higher", ""),
        ("hsnmf", "all", "edge_agreement", 0.8, "higher", ""),
        ("nmf", "all", "silhouette", np.nan, "higher", "one cluster only"),
        ("snmf", "all", "silhouette", 0.1, "higher", ""),
        ("hsnmf", "all", "silhouette", 0.2, "higher", "on the graph that smoothed it"),
        ("nmf", "all", "n_clusters", 1, "", ""),
        ("snmf", "all", "n_clusters", 8, "", ""),
        ("hsnmf", "all", "n_clusters", 5, "", ""),
        ("nmf", "left", "chaos", 0.5, "lower", ""),
    ]
    return pd.DataFrame(rows, columns=["key", "library", "metric", "value", "better", "note"])


def cells(ax, n_columns: int) -> np.ndarray:
    """Patches of the table, metrics × keys."""
    return np.array(ax.patches, dtype=object).reshape(-1, n_columns)


def texts(ax, n_columns: int) -> np.ndarray:
    drawn = [t.get_text() for t in ax.texts if t.get_gid() != "notes"]
    return np.array(drawn, dtype=object).reshape(-1, n_columns)


def test_numbers_and_directions(table):
    ax = sn.pl.metric_panel(table)
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names == ["chaos ↓", "edge agreement ↑", "silhouette ↑", "n clusters"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["nmf", "snmf", "hsnmf"]
    printed = texts(ax, 3)
    assert printed[0].tolist() == ["0.0120", "0.00800", "0.00400"]
    assert printed[3].tolist() == ["1", "8", "5"]


def test_better_is_always_the_same_colour(table):
    drawn = cells(sn.pl.metric_panel(table), 3)
    best, worst = to_hex(COLORS(1.0)), to_hex(COLORS(0.0))
    assert [to_hex(c.get_facecolor()) for c in drawn[0][[2, 0]]] == [best, worst]  # lower is better
    assert [to_hex(c.get_facecolor()) for c in drawn[1][[2, 0]]] == [best, worst]  # higher is better
    np.testing.assert_allclose(drawn[1][1].get_facecolor(), COLORS(0.25), atol=0.01)


def test_nothing_to_compare_has_no_colour(table):
    """A metric without a better side, a row of equal values, a single method: one neutral colour."""
    neutral = {to_hex(c.get_facecolor()) for c in cells(sn.pl.metric_panel(table), 3)[3]}
    assert len(neutral) == 1
    one = sn.pl.metric_panel(table, keys=["hsnmf"])
    assert {to_hex(c.get_facecolor()) for c in one.patches} == neutral
    equal = table.assign(value=table["value"].where(table["metric"] != "chaos", 0.1 + 0.2))
    equal.loc[0, "value"] = 0.3
    assert {to_hex(c.get_facecolor()) for c in cells(sn.pl.metric_panel(equal), 3)[0]} == neutral


def test_missing_is_hatched_with_its_reason(table):
    ax = sn.pl.metric_panel(table)
    hatched = [(i, j) for (i, j), c in np.ndenumerate(cells(ax, 3)) if c.get_hatch()]
    assert hatched == [(2, 0)]
    (notes,) = [t.get_text() for t in ax.texts if t.get_gid() == "notes"]
    assert notes.splitlines() == ["a  one cluster only", "b  on the graph that smoothed it"]
    assert texts(ax, 3)[2].tolist() == ["$^{a}$", "0.100", "0.200$^{b}$"]


def test_a_value_that_is_not_there_is_missing(table):
    panel = read_panel(table.drop(index=1), keys=["nmf", "snmf", "hsnmf"])
    assert np.isnan(panel.values[0]).tolist() == [False, True, False]
    assert (panel.marks[0], panel.notes[0]) == (["", "a", ""], "not computed")


def test_chosen_rows_columns_and_library(table):
    ax = sn.pl.metric_panel(table, metrics=["silhouette", "chaos"], keys=["hsnmf", "nmf"])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["silhouette ↑", "chaos ↓"]
    assert texts(ax, 2)[1].tolist() == ["0.00400", "0.0120"]
    left = sn.pl.metric_panel(table, library="left")
    assert texts(left, 1).tolist() == [["0.500"]]


def test_from_a_csv_file(table, tmp_path):
    """Where "" comes back as NaN."""
    table.to_csv(tmp_path / "metrics.csv", index=False)
    again = read_panel(pd.read_csv(tmp_path / "metrics.csv"))
    for name in ("metrics", "keys", "better", "marks", "notes"):
        assert getattr(again, name) == getattr(read_panel(table), name)


def test_infinite_values_take_an_end_of_the_colours():
    table = pd.DataFrame({"key": list("abc"), "metric": "m", "value": [np.inf, 1, 2], "better": "lower"})
    assert read_panel(table).position().tolist() == [[0.0, 1.0, 0.0]]


def test_table_and_axes_are_the_callers(table):
    before = table.copy()
    _, ax = plt.subplots()
    assert sn.pl.metric_panel(table, ax=ax) is ax
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (lambda t: t.drop(columns="better"), {}, KeyError, "'better' is not in .*metrics.panel"),
        (lambda t: t, {"metrics": ["chao"]}, ValueError, "`metrics` must be among 'chaos'.*not 'chao'"),
        (lambda t: t, {"keys": ["pca"]}, ValueError, "`keys` must be among 'nmf'"),
        (lambda t: t, {"library": "middle"}, ValueError, "`library` must be among 'all', 'left'"),
        (lambda t: t.assign(better="bigger"), {}, ValueError, "`better` must be among 'higher', 'lower'"),
        (lambda t: pd.concat([t, t]), {}, ValueError, "more than one value of 'chaos' for 'nmf'"),
        (lambda t: t.iloc[:0], {}, ValueError, "must be among"),
    ],
)
def test_refused(table, change, options, error, message):
    with pytest.raises(error, match=message):
        sn.pl.metric_panel(change(table), **options)
    assert not plt.get_fignums()
