"""Plots of evaluation: composition of samples, convergence, number of domains. What is drawn; no image is compared."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from support import changed, snapshot

import spanmf as sn


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


# --- composition ----------------------------------------------------------------------------------------------------


@pytest.fixture
def samples() -> ad.AnnData:
    """Six samples of two conditions, three domains, some cells without one."""
    rng = np.random.default_rng(0)
    sample = rng.integers(0, 6, 600)
    out = ad.AnnData(
        np.ones((600, 2), dtype=np.float32),
        obs=pd.DataFrame(
            {
                "sample": [f"patient {i}" for i in sample],
                "arm": np.where(sample % 2, "treated", "control"),
                "domain": pd.Categorical(rng.choice(["core", "edge", "stroma"], 600)),
            },
            index=[f"c{i}" for i in range(600)],
        ),
    )
    out.obs.loc[out.obs_names[:20], "domain"] = np.nan
    return out


def bars(ax: Axes) -> dict[float, list[float]]:
    """Widths of the pieces of each bar, by its place."""
    out: dict[float, list[float]] = {}
    for patch in ax.patches:
        out.setdefault(round(patch.get_y() + patch.get_height() / 2, 6), []).append(patch.get_width())
    return out


def texts(ax: Axes) -> list[str]:
    return [t.get_text() for t in ax.texts]


def test_bars_are_the_shares(samples):
    before = snapshot(samples)
    ax = sn.pl.composition(samples, "domain", "sample")
    expected = pd.crosstab(samples.obs["sample"], samples.obs["domain"], normalize="index")
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names == expected.index.tolist()
    np.testing.assert_allclose([bars(ax)[y] for y in ax.get_yticks()], expected)
    cells = samples.obs.dropna(subset="domain").groupby("sample").size()
    assert {str(n) for n in cells} < set(texts(ax))
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["core", "edge", "stroma"]
    assert changed(before, snapshot(samples)) == []


def test_samples_are_grouped_by_condition_and_every_sample_is_a_dot(samples):
    figure = sn.pl.composition(samples, "domain", "sample", condition_key="arm")
    left, right = figure.axes
    names = [t.get_text() for t in left.get_yticklabels()]
    assert names == [f"patient {i}" for i in (0, 2, 4, 1, 3, 5)]
    assert np.diff(left.get_yticks()).tolist() == [1, 1, 2, 1, 1]
    assert {"control", "treated"} < set(texts(left))
    shares, test = sn.tl.composition(samples, "domain", "sample", condition_key="arm")
    dots = np.concatenate([c.get_offsets() for c in right.collections])
    assert len(dots) == 6 * 3
    for i, domain in enumerate(("core", "edge", "stroma")):
        here = dots[np.abs(dots[:, 1] - i) < 0.5, 0]
        np.testing.assert_allclose(sorted(here), sorted(shares.loc[shares["domain"] == domain, "share"]))
    shown = [t for t in texts(right) if t != "adj. p"]
    assert [float(t) for t in shown] == [pytest.approx(p, abs=0.005, rel=0.1) for p in test["p_adjusted"]]
    assert [t.get_text() for t in right.get_legend().get_texts()] == ["control", "treated"]


def test_a_dash_where_there_is_no_p(samples):
    samples.obs["arm"] = samples.obs["sample"]  # one sample a condition
    figure = sn.pl.composition(samples, "domain", "sample", condition_key="arm")
    assert [t for t in texts(figure.axes[1]) if t != "adj. p"] == ["–"] * 3


def test_a_sample_without_labels_is_named_so(samples):
    samples.obs.loc[samples.obs["sample"] == "patient 3", "domain"] = np.nan
    ax = sn.pl.composition(samples, "domain", "sample")
    assert "none labelled" in texts(ax)
    assert bars(ax)[3.0] == [0, 0, 0]


def test_composition_takes_the_colours_of_the_domains(samples):
    samples.uns["domain_colors"] = ["#ff0000", "#00ff00", "#0000ff"]
    ax = sn.pl.composition(samples, "domain", "sample")
    assert [to_hex(p.get_facecolor()) for p in ax.patches[::6]] == samples.uns["domain_colors"]
    ax = sn.pl.composition(samples, "domain", "sample", palette=["black", "white", "red"])
    assert [to_hex(p.get_facecolor()) for p in ax.patches[::6]] == ["#000000", "#ffffff", "#ff0000"]


def test_composition_of_factors_and_given_axes(samples):
    samples.obsm["X_nmf"] = np.random.default_rng(0).random((600, 4))
    _, given = plt.subplots()
    assert sn.pl.composition(samples, "nmf", "sample", ax=given) is given
    assert len(given.patches) == 6 * 4
    with pytest.raises(ValueError, match="ax"):
        sn.pl.composition(samples, "domain", "sample", condition_key="arm", ax=given)


def test_long_names_and_many_samples_do_not_shrink_the_bars(samples):
    samples.obs["sample"] = "a core of the tissue microarray, " + samples.obs["sample"]
    samples.obs["domain"] = samples.obs["domain"].cat.rename_categories(lambda x: f"a domain with a long name: {x}")
    for options in ({}, {"condition_key": "arm"}):
        drawn = sn.pl.composition(samples, "domain", "sample", **options)
        figure = drawn.figure if isinstance(drawn, Axes) else drawn
        figure.draw_without_rendering()
        for ax in figure.axes:
            assert ax.get_window_extent().width / figure.dpi > 2
            for label in [*ax.get_yticklabels(), *([] if ax.get_legend() is None else ax.get_legend().get_texts())]:
                box = label.get_window_extent()
                assert box.x0 >= -1
                assert box.x1 <= figure.bbox.width + 1


# --- convergence ----------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(samples) -> ad.AnnData:
    samples.uns["nmf"] = {"trace": np.array([10.0, 4.0, 2.5, 2.0]), "converged": True}
    samples.uns["snmf"] = {"trace": np.array([9.0, 6.0, 3.0]), "converged": False}
    samples.uns["old"] = {"trace": np.array([9.0, 6.0])}
    samples.uns["domains"] = {"params": {}}
    return samples


def test_lines_are_the_relative_excess(runs):
    ax = sn.pl.convergence(runs, ["nmf", "snmf", "old"])
    assert ax.get_yscale() == "log"
    lines = [line for line in ax.get_lines() if not line.get_label().startswith("_")]
    np.testing.assert_allclose(lines[0].get_ydata(), [4.0, 1.0, 0.25])
    np.testing.assert_allclose(lines[0].get_xdata(), [0, 1, 2])
    np.testing.assert_allclose(lines[1].get_ydata(), [2.0, 1.0])
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels == ["nmf: 3 passes, converged", "snmf: 2 passes, stopped at max_iter", "old: 1 passes"]
    ends = [line for line in ax.get_lines() if line.get_label().startswith("_")]
    assert [line.get_marker() for line in ends] == ["o", "x", "o"]


def test_trace_of_a_real_run_is_drawn_after_a_round_trip(samples, tmp_path):
    samples.X = np.random.default_rng(0).random((600, 2)).astype(np.float32)
    sn.tl.nmf(samples, 2)
    samples.write_h5ad(tmp_path / "a.h5ad")
    ax = sn.pl.convergence(ad.read_h5ad(tmp_path / "a.h5ad"), "nmf")
    assert "converged" in ax.get_legend().get_texts()[0].get_text()


@pytest.mark.parametrize(
    ("keys", "error", "match"),
    [([], ValueError, "empty"), ("other", KeyError, "other"), ("domains", KeyError, "no objective trace")],
)
def test_runs_without_a_trace_are_named(runs, keys, error, match):
    with pytest.raises(error, match=match):
        sn.pl.convergence(runs, keys)


# --- number of domains ----------------------------------------------------------------------------------------------


@pytest.fixture
def candidates() -> pd.DataFrame:
    information = np.array([-0.5, 0.2, 1.4, 1.0])
    return pd.DataFrame(
        {
            "n_domains": [2, 3, 4, 6],
            "information": information,
            "information_sd": 0.4,
            "stability": [0.2, 0.5, 0.8, 0.7],
            "stability_sd": 0.1,
            "n_splits": 4,
            "suggested": information == information.max(),
        }
    )


def test_curve_with_its_error_and_suggestion(candidates):
    ax = sn.pl.domain_selection(candidates)
    curve = ax.containers[0]
    np.testing.assert_allclose(curve.lines[0].get_xydata(), candidates[["n_domains", "information"]])
    (errors,) = curve.lines[2]
    np.testing.assert_allclose([np.ptp(s[:, 1]) for s in errors.get_segments()], 2 * 0.4 / 2)
    assert texts(ax) == ["suggested: 4"]
    assert any(set(np.ravel(line.get_xdata())) == {4} for line in ax.get_lines())
    assert ax.get_xticks().tolist() == [2, 3, 4, 6]
    right = next(a for a in ax.figure.axes if a is not ax)
    np.testing.assert_allclose(right.get_lines()[0].get_ydata(), candidates["stability"])


def test_a_table_of_another_kind_is_named(candidates):
    with pytest.raises(KeyError, match="'information'"):
        sn.pl.domain_selection(candidates.drop(columns="information"))
    with pytest.raises(ValueError, match="empty"):
        sn.pl.domain_selection(candidates.iloc[:0])
    _, given = plt.subplots()
    assert sn.pl.domain_selection(candidates, ax=given) is given
