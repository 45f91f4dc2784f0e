"""Pareto front, knee and hypervolume against brute force; what pl.pareto draws."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

import spanmf as sn
from spanmf._checks import SpanmfWarning
from spanmf.core import _pareto

BOTH = {"a": "max", "b": "min"}


def runs(values, *names) -> pd.DataFrame:
    return pd.DataFrame(np.asarray(values, dtype=float), columns=list(names))


def beats(p, q) -> bool:
    return all(x >= y for x, y in zip(p, q, strict=True)) and any(x > y for x, y in zip(p, q, strict=True))


def layers(points) -> list[int]:
    """Number of the front of every point, by taking fronts away one after another."""
    left, out, rank = set(range(len(points))), [0] * len(points), 0
    while left:
        rank += 1
        front = {i for i in left if not any(beats(points[j], points[i]) for j in left)}
        for i in front:
            out[i] = rank
        left -= front
    return out


def inclusion_exclusion(points: np.ndarray) -> float:
    return sum(
        (-1) ** (r + 1) * points[list(some)].min(0).prod()
        for r in range(1, len(points) + 1)
        for some in combinations(range(len(points)), r)
    )


# --- front and knee -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 2, 3, 5])
@pytest.mark.parametrize("levels", [3, 1000])
def test_fronts_are_those_of_brute_force(m, levels):
    """With few levels there are many ties and equal rows."""
    values = np.random.default_rng(m).integers(0, levels, (60, m))
    names = [f"m{j}" for j in range(m)]
    directions = {name: ("max", "min")[j % 2] for j, name in enumerate(names)}
    found = sn.metrics.pareto_front(runs(values, *names), directions)
    expected = layers(values * np.where(np.arange(m) % 2, -1, 1))
    assert found["front"].tolist() == expected
    assert found["on_front"].tolist() == [rank == 1 for rank in expected]
    assert found["knee"].sum() == 1
    assert found.loc[found["knee"], "on_front"].all()


def test_more_points_than_a_block():
    values = np.random.default_rng(0).random((3 * _pareto.ROWS_A_BLOCK + 5, 2))
    found = sn.metrics.pareto_front(runs(values, "a", "b"), BOTH)["on_front"]
    signed = values * [1, -1]
    assert found.tolist() == [not any(beats(q, p) for q in signed) for p in signed]


def test_knee_is_nearest_to_the_ideal_of_the_front():
    """The units of the objectives and the rows behind the front do not matter."""
    table = runs([[0, 0], [70, 0.02], [80, 0.05], [100, 0.1], [-500, 9]], "a", "b")
    expected = [False, True, False, False, False]  # scaled: (0, 1), (.7, .8), (.8, .5), (1, 0)
    assert sn.metrics.pareto_front(table, BOTH)["knee"].tolist() == expected
    assert sn.metrics.pareto_front(table * [1e-6, 1e3], BOTH)["knee"].tolist() == expected


def test_one_row_and_equal_rows():
    assert sn.metrics.pareto_front(runs([[1, 2]], "a", "b"), BOTH).loc[0, ["on_front", "knee"]].all()
    with pytest.warns(SpanmfWarning, match="'a', 'b' is the same in every row"):
        found = sn.metrics.pareto_front(runs([[1, 2]] * 3, "a", "b"), BOTH)
    assert found["on_front"].all()
    assert found["knee"].tolist() == [True, False, False]


def test_constant_objective_takes_no_part():
    table = runs([[1, 5], [2, 5], [0, 5]], "a", "b")
    with pytest.warns(SpanmfWarning, match="'b' is the same in every row"):
        found = sn.metrics.pareto_front(table, BOTH)
    assert found["front"].tolist() == [2, 1, 3]


def test_rows_without_a_value_are_on_no_front():
    table = runs([[9, np.nan], [1, 1], [np.inf, 0], [0, 0.5]], "a", "b")
    before = table.copy()
    with pytest.warns(SpanmfWarning, match="2 of 4 rows are left out: 'a', 'b' is missing or infinite"):
        found = sn.metrics.pareto_front(table, BOTH)
    assert found["front"].tolist() == [0, 1, 0, 1]
    assert found["on_front"].tolist() == [False, True, False, True]
    pd.testing.assert_frame_equal(table, before)
    with pytest.warns(SpanmfWarning, match="2 of 2 rows"):
        assert not sn.metrics.pareto_front(table.iloc[[0, 2]], BOTH)[["on_front", "knee"]].to_numpy().any()


def test_index_and_other_columns_stay():
    table = runs([[1, 2], [2, 1]], "a", "b").set_index(pd.Index(["x", "y"])).assign(key=["u", "v"], front="old")
    found = sn.metrics.pareto_front(table, BOTH)
    assert list(found) == ["a", "b", "key", "front", "on_front", "knee"]
    assert found.index.tolist() == ["x", "y"]
    assert found["front"].tolist() == [2, 1]


def test_published_objectives():
    table = sweep_table()
    found = sn.metrics.pareto_front(table)
    np.testing.assert_allclose(found["compactness"], table["morans_i"] / (100 * table["chaos"]))
    np.testing.assert_allclose(found["coherence"], table["marker_coherence"] * table["enrichment"])
    np.testing.assert_allclose(found["separability"], table["silhouette"] / table["davies_bouldin"])
    for plain in (table.drop(columns="enrichment"), table.assign(enrichment=np.nan)):
        np.testing.assert_allclose(sn.metrics.pareto_front(plain)["coherence"], table["marker_coherence"])
    names = dict.fromkeys(("compactness", "coherence", "separability"), "max")
    pd.testing.assert_frame_equal(
        sn.metrics.pareto_front(found, names), found[list(sn.metrics.pareto_front(found, names))]
    )


def test_a_score_with_a_divisor_of_zero_is_missing():
    table = sweep_table()
    table.loc[0, "chaos"] = 0
    with pytest.warns(SpanmfWarning, match="1 of 25 rows are left out: 'compactness'"):
        assert sn.metrics.pareto_front(table)["front"][0] == 0


# --- hypervolume ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("levels", [4, 0])
def test_hypervolume_is_that_of_inclusion_and_exclusion(m, levels):
    rng = np.random.default_rng(m)
    points = rng.random((11, m)) if levels == 0 else rng.integers(0, levels, (11, m)) / levels
    names = [f"m{j}" for j in range(m)]
    found = sn.metrics.hypervolume(
        runs(points, *names), dict.fromkeys(names, "max"), reference=dict.fromkeys(names, (0, 1))
    )
    assert found == pytest.approx(inclusion_exclusion(points))


@pytest.mark.parametrize(("m", "n"), [(2, 500), (3, 300), (5, 60)])
def test_hypervolume_is_that_of_monte_carlo(m, n):
    """At the size of a sweep, with all points on the front."""
    rng = np.random.default_rng(0)
    points = np.abs(rng.normal(size=(n, m)))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    darts = rng.random((20_000, m))
    hit = np.zeros(len(darts), dtype=bool)
    for point in points:
        hit |= (darts <= point).all(1)
    assert _pareto.hypervolume(points) == pytest.approx(hit.mean(), abs=5 * np.sqrt(hit.mean() / len(darts)))


def test_hypervolume_is_scaled_by_the_table_or_the_reference():
    table = runs([[0, 10], [5, 0], [10, 10]], "a", "b")
    assert sn.metrics.hypervolume(table, BOTH) == 0.5  # (0, 0), (.5, 1), (1, 0)
    reference = {"a": (-10, 10), "b": (20, 0)}
    assert sn.metrics.hypervolume(table, BOTH, reference=reference) == pytest.approx(0.75 * 1 + 0.25 * 0.5)
    units = table * [1000, 0.01]
    assert sn.metrics.hypervolume(units, BOTH) == pytest.approx(0.5)
    # what is not above the worst in everything adds nothing
    assert sn.metrics.hypervolume(table, BOTH, reference={"a": (5, 10), "b": (20, 10)}) == pytest.approx(1.0)
    assert sn.metrics.hypervolume(table.iloc[:1], BOTH, reference={"a": (5, 10), "b": (20, 0)}) == 0


def test_hypervolume_without_complete_rows():
    table = runs([[1, 1], [np.nan, 0], [2, 2]], "a", "b")
    with pytest.warns(SpanmfWarning, match="1 of 3 rows"):
        assert sn.metrics.hypervolume(table, BOTH) == sn.metrics.hypervolume(table.iloc[[0, 2]], BOTH)
    with pytest.warns(SpanmfWarning, match="1 of 1 rows"):
        assert np.isnan(sn.metrics.hypervolume(table.iloc[[1]], BOTH))


# --- bad input ------------------------------------------------------------------------------------------------------

TABLE = runs([[1, 2], [2, 1]], "morans_i", "chaos").assign(key=["u", "v"])


@pytest.mark.parametrize("function", [sn.metrics.pareto_front, sn.metrics.hypervolume])
@pytest.mark.parametrize(
    ("table", "objectives", "error", "says"),
    [
        (
            TABLE,
            {"moran_i": "max"},
            KeyError,
            "'moran_i' is not a column.*'morans_i', 'chaos'.*Did you mean 'morans_i'",
        ),
        (TABLE, {"chaos": "low"}, ValueError, r"objectives\['chaos'\].*'max', 'min', not 'low'"),
        (TABLE, {}, ValueError, "`objectives` is empty"),
        (TABLE, ["chaos"], TypeError, "must be a mapping"),
        (TABLE, {"key": "max"}, TypeError, "'key' must hold numbers"),
        (TABLE, None, KeyError, "'marker_coherence' is not a column"),
        (TABLE.iloc[:0], {"chaos": "min"}, ValueError, "no rows"),
        ([1, 2], {"chaos": "min"}, TypeError, "must be a DataFrame"),
    ],
    ids=["unknown", "direction", "empty", "list", "text", "published", "no-rows", "no-table"],
)
def test_bad_objectives(function, table, objectives, error, says):
    with pytest.raises(error, match=says):
        function(table, objectives)


@pytest.mark.parametrize(
    ("reference", "error", "says"),
    [
        ({"morans_i": (0, 1)}, KeyError, "not the objective 'chaos'"),
        ({"morans_i": (0, 1), "chaos": (0, 1)}, ValueError, r"\(worst, best\).*'chaos' is to be min"),
        ({"morans_i": 0, "chaos": (1, 0)}, ValueError, r"must be \(worst, best\), not 0"),
        ({"morans_i": (0, np.inf), "chaos": (1, 0)}, ValueError, r"\(worst, best\)"),
    ],
)
def test_bad_reference(reference, error, says):
    with pytest.raises(error, match=says):
        sn.metrics.hypervolume(TABLE, {"morans_i": "max", "chaos": "min"}, reference=reference)


def test_hypervolume_of_a_constant_objective_is_refused():
    with pytest.raises(ValueError, match="'b' is the same in all 2 rows"):
        sn.metrics.hypervolume(runs([[1, 5], [2, 5]], "a", "b"), BOTH)


def sweep_table(seed: int = 0) -> pd.DataFrame:
    """What a sweep of 5 ranks and 5 resolutions looks like."""
    rng = np.random.default_rng(seed)
    grid = pd.MultiIndex.from_product(
        [(5, 10, 15, 20, 25), (0.2, 0.4, 0.6, 0.8, 1.0)], names=["n_components", "resolution"]
    )
    table = grid.to_frame(index=False).assign(beta=0.6, alpha=0.1, rng=0)
    for name, low, high in (
        ("morans_i", 0.5, 0.9), ("chaos", 0.004, 0.02), ("marker_coherence", 0.3, 0.8), ("enrichment", 0.5, 3),
        ("silhouette", 0.05, 0.3), ("davies_bouldin", 1, 2.5),
    ):  # fmt: skip
        table[name] = rng.uniform(low, high, len(table))
    return table
