"""Pareto front, knee and hypervolume against brute force; what pl.pareto draws."""

from __future__ import annotations

import io
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

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


# --- pl.pareto ------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def names_of(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def boxes(ax) -> list:
    """Extents of the names, without the lines that lead to their points."""
    renderer = ax.figure.canvas.get_renderer()
    return [mpl.text.Text.get_window_extent(text, renderer) for text in ax.texts]


def test_published_plots_by_default():
    table = sweep_table()
    figure = sn.pl.pareto(table)
    scored = sn.metrics.pareto_front(table)
    assert len(figure.axes) == 2
    for ax, name in zip(figure.axes, ("coherence", "separability"), strict=True):
        assert "Moran's I / (100 CHAOS)" in ax.get_xlabel()
        drawn = np.concatenate([c.get_offsets() for c in ax.collections[:-1]])
        assert {*map(tuple, drawn)} == {*scored[["compactness", name]].itertuples(index=False, name=None)}
        front = sn.metrics.pareto_front(scored, {"compactness": "max", name: "max"})
        on_front = front.loc[front["on_front"], ["n_components", "resolution"]]
        assert {*names_of(ax)} == {f"{k:g} / {r:g}" for k, r in on_front.itertuples(index=False)}
        knee = front.loc[front["knee"], ["compactness", name]]
        np.testing.assert_allclose(ax.collections[-1].get_offsets(), knee)
    assert "marker coherence × enrichment" in figure.axes[0].get_ylabel()
    assert "silhouette / Davies–Bouldin" in figure.axes[1].get_ylabel()


def test_without_enrichment_the_axis_says_so():
    ax = sn.pl.pareto(sweep_table().drop(columns="enrichment")).axes[0]
    assert "marker coherence (no enrichment)" in ax.get_ylabel()
    drawn = np.concatenate([c.get_offsets() for c in ax.collections[:-1]])
    assert {*drawn[:, 1]} == {*sweep_table()["marker_coherence"]}


def test_a_published_plot_without_values_is_left_out():
    ax = sn.pl.pareto(sweep_table().assign(marker_coherence=np.nan))
    assert "silhouette" in ax.get_ylabel()


@pytest.mark.parametrize("to_x", ["max", "min"])
@pytest.mark.parametrize("to_y", ["max", "min"])
def test_the_line_bounds_what_the_front_beats(to_x, to_y):
    """Every corner of the stairs that is no run is beaten by both runs beside it, in no more than it must."""
    table = sweep_table()
    objectives = {"chaos": to_x, "pas": to_y}
    table["pas"] = np.random.default_rng(1).random(len(table))
    ax = sn.pl.pareto(table, objectives=objectives)
    front = sn.metrics.pareto_front(table, objectives)
    runs_there = {*front.loc[front["on_front"], ["chaos", "pas"]].itertuples(index=False, name=None)}
    corners = ax.lines[0].get_xydata()
    assert runs_there <= {*map(tuple, corners)}
    worse_x, worse_y = (min if to == "max" else max for to in (to_x, to_y))
    for before, corner, after in zip(corners[:-2:2], corners[1:-1:2], corners[2::2], strict=True):
        assert tuple(corner) == (worse_x(before[0], after[0]), worse_y(before[1], after[1]))


def test_colour_is_the_rank_and_size_the_resolution():
    ax = sn.pl.pareto(sweep_table(), "silhouette", "chaos")
    table = sweep_table().set_index(["silhouette", "chaos"])
    seen: dict[str, dict] = {"n_components": {}, "resolution": {}}
    for dots in ax.collections[:-1]:
        for at, color, size in zip(dots.get_offsets(), dots.get_facecolors(), dots.get_sizes(), strict=True):
            run = table.loc[tuple(at)]
            assert seen["n_components"].setdefault(run["n_components"], tuple(color[:3])) == tuple(color[:3])
            assert seen["resolution"].setdefault(run["resolution"], size) == size
    assert len({*seen["n_components"].values()}) == 5
    assert [s for _, s in sorted(seen["resolution"].items())] == sorted({*seen["resolution"].values()})
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    assert {"5", "25", "0.2", "1", "knee"} <= {*words}
    assert "components / resolution" in ax.get_legend().get_title().get_text()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("crowd", [1.0, 0.15], ids=["apart", "crowded"])
def test_names_do_not_overlap(seed, crowd):
    table = sweep_table(seed)
    table["silhouette"] *= np.random.default_rng(seed).choice([crowd, 1], len(table), p=[0.9, 0.1])
    ax = sn.pl.pareto(table, "silhouette", "chaos", label="all")
    found = boxes(ax)
    assert len(found) >= 0.9 * len(table)
    assert not [(a, b) for a, b in combinations(found, 2) if a.overlaps(b)]
    frame = ax.get_window_extent()
    assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 and frame.y0 <= b.y0 and b.y1 <= frame.y1 for b in found)
    if crowd == 1:
        centres = ax.transData.transform(table[["silhouette", "chaos"]].to_numpy())
        assert sum(b.contains(*c) for b in found for c in centres) == 0
    # where they are does not change when the figure is drawn at another resolution
    before = {t.get_text(): t.get_position() for t in ax.texts}
    ax.figure.savefig(io.BytesIO(), dpi=37)
    assert {t.get_text(): t.get_position() for t in ax.texts} == before


def test_all_runs_at_one_place():
    """No place for every name: some are left out, none is drawn over another."""
    table = sweep_table()
    table[["silhouette", "chaos"]] = [0.2, 0.01]
    with pytest.warns(SpanmfWarning, match="same in every row"):
        ax = sn.pl.pareto(table, "silhouette", "chaos")
    assert 1 <= len(ax.texts) < len(table) + 1
    assert not [(a, b) for a, b in combinations(boxes(ax), 2) if a.overlaps(b)]


def test_front_of_more_objectives_is_marked_not_connected():
    table = sweep_table()
    objectives = {"silhouette": "max", "chaos": "min", "marker_coherence": "max"}
    ax = sn.pl.pareto(table, objectives=objectives)
    assert not ax.lines
    assert len(ax.texts) == sn.metrics.pareto_front(table, objectives)["on_front"].sum()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("silhouette  →", "←  CHAOS")
    other = sn.pl.pareto(table, "marker_coherence", "enrichment", objectives=objectives)
    assert len(other.texts) == len(ax.texts)
    assert other.get_ylabel() == "enrichment"


def test_names_of_what_varies():
    table = sweep_table().query("n_components == 5").assign(alpha=[0, 0.1, 0.2, 0.3, 0.4])
    names = names_of(sn.pl.pareto(table, "silhouette", "chaos", label="all"))
    assert {*names} == {f"{a:g} / {r:g}" for a, r in zip(table["alpha"], table["resolution"], strict=True)}
    assert not names_of(sn.pl.pareto(table, "silhouette", "chaos", label=None))


def test_axes_of_the_user_and_incomplete_rows():
    table = sweep_table()
    table.loc[3, "chaos"] = np.nan
    _, mine = plt.subplots()
    with pytest.warns(SpanmfWarning, match="1 of 25 rows"):
        assert sn.pl.pareto(table, "silhouette", "chaos", ax=mine) is mine
    assert sum(len(c.get_offsets()) for c in mine.collections[:-1]) == 24
    before = table.copy()
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"x": "chaos"}, ValueError, "Give both `x` and `y`"),
        ({"x": "chaos", "y": "n_components"}, ValueError, "Which way is 'n_components' better"),
        ({"x": "chaos", "y": "chaoss"}, KeyError, "Did you mean 'chaos'"),
        ({"objectives": {"chaos": "min"}}, ValueError, "at least two columns"),
        ({"label": "none"}, ValueError, "`label` must be one of"),
        ({"ax": object()}, ValueError, "`ax=` takes one panel"),
    ],
)
def test_bad_plots(options, error, says):
    with pytest.raises(error, match=says):
        sn.pl.pareto(sweep_table(), **options)
    assert not plt.get_fignums()


def test_nothing_to_draw():
    table = sweep_table().assign(chaos=np.nan)
    with pytest.warns(SpanmfWarning, match="25 of 25"), pytest.raises(ValueError, match="nothing to draw"):
        sn.pl.pareto(table, "silhouette", "chaos")
