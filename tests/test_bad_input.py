"""What a user can get wrong: a clear error, before any long work, that names the cause and the next call.

After every error the table is as it was, to the bit.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from support import changed, small_tissue, snapshot, with_slots

import spanmf as sn

N, P = 120, 30
LONG = ("_init", "_solver", "_smooth", "_knn", "_leiden", "_domains")  # modules of core where the time goes
SHORT = {"as_graph", "row_sums"}  # wrap a graph


class LongWorkError(Exception):
    """Long work began."""


@pytest.fixture
def adata() -> ad.AnnData:
    return with_slots(small_tissue(N, P))


@pytest.fixture
def no_long_work(monkeypatch):
    """Every function of core that takes time raises, wherever it was imported to."""

    def stop(*args, **kwargs):
        raise LongWorkError

    for namespace in sn.__all__:  # a module first imported under the stop would keep it
        getattr(sn, namespace)
    slow = [
        f
        for name in LONG
        for f in vars(importlib.import_module(f"spanmf.core.{name}")).values()
        if inspect.isfunction(f) and f.__module__ == f"spanmf.core.{name}" and f.__name__ not in SHORT
    ]
    for name, module in list(sys.modules.items()):
        if name.startswith("spanmf.") and module is not None:
            for attribute, value in list(vars(module).items()):
                if any(value is f for f in slow):
                    monkeypatch.setattr(module, attribute, stop)


def contact(a, **kw):
    return sn.gr.contact_neighbors(a, **{"contact_radius": 20, "context_radius": 80, **kw})


def hybrid(a, **kw):
    return sn.gr.hybrid_neighbors(a, **kw)


def nmf(a, **kw):
    return sn.tl.nmf(a, **{"n_components": 4, **kw})


def snmf(a, **kw):
    return sn.tl.snmf(a, **{"n_components": 4, **kw})


def hsnmf(a, **kw):
    return sn.tl.hsnmf(a, **{"n_components": 4, **kw})


def project(a, **kw):
    return sn.tl.project(a, with_slots(small_tissue(N, P)), **kw)


FACTORISE = (nmf, snmf, hsnmf)
READ_X = (*FACTORISE, project)
ON_GRAPH = (hybrid, snmf, hsnmf)
ALL = (contact, hybrid, *READ_X)


def on(*functions):
    return pytest.mark.parametrize("run", functions, ids=lambda f: f.__name__)


def assert_refused(run, adata, error, *words, **kw):
    """``run`` raises this error, its message holds all the words (case aside), and the table is untouched."""
    before = snapshot(adata)
    with pytest.raises(error) as caught:
        run(adata, **kw)
    message = str(caught.value)
    assert [w for w in words if not re.search(w, message, re.IGNORECASE)] == [], message
    assert changed(before, snapshot(adata)) == []


@on(hybrid, *READ_X)
@pytest.mark.usefixtures("no_long_work")
def test_the_stop_works(run, adata):
    """The fixture stops good input: errors that come under it came before the long work."""
    with pytest.raises(LongWorkError):
        run(adata)


# --- values of X ----------------------------------------------------------------------------------------------------

BAD_VALUES = [(-0.5, "1 negative"), (np.nan, "1 NaN"), (np.inf, "1 infinite"), (-np.inf, "1 infinite")]


@on(*READ_X)
@pytest.mark.parametrize(("value", "words"), BAD_VALUES, ids=["negative", "nan", "inf", "-inf"])
@pytest.mark.parametrize("dense", [False, True], ids=["csr", "dense"])
@pytest.mark.usefixtures("no_long_work")
def test_bad_value(run, adata, value, words, dense):
    adata.X.data[7] = value
    if dense:
        adata.X = adata.X.toarray()
    assert_refused(run, adata, ValueError, words, re.escape("`adata.X`"))


@on(*READ_X)
@pytest.mark.usefixtures("no_long_work")
@pytest.mark.parametrize("factor", [1e30, 1e200, 1e-30])
def test_beyond_float32(run, adata, factor):
    """Finite in float64, but not in the float32 that is computed in."""
    adata.X = adata.X.astype(np.float64) * factor
    assert_refused(run, adata, ValueError, re.escape("`adata.X`"), "float32", "Rescale")


@on(*READ_X)
@pytest.mark.usefixtures("no_long_work")
def test_bad_value_names_the_layer(run, adata):
    adata.layers["raw"] = adata.X.copy()
    adata.layers["raw"].data[:2] = np.nan
    assert_refused(run, adata, ValueError, "2 NaN", re.escape("adata.layers['raw']"), layer="raw")


def calls_in(error) -> list[str]:
    """What a message advises to run."""
    return re.findall(r"`([^`]+ = [^`]+)`", str(error.value))


FORMS = pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csr_array, sp.csc_matrix])


@FORMS
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_advice_on_values_that_are_not_finite_works(adata, form, value):
    X = adata.X.toarray()
    X[3, 5] = value
    adata.X = form(X)
    with pytest.raises(ValueError, match="Remove or impute") as caught:
        nmf(adata)
    (call,) = calls_in(caught)
    names = {"adata": adata, "np": np}
    exec(call, names)
    assert names["adata"].n_vars == adata.n_vars - 1
    nmf(names["adata"])


@FORMS
@pytest.mark.parametrize("layer", [None, "raw"])
def test_advice_on_negative_intensities_works(adata, form, layer):
    X = adata.X.toarray() - 0.5
    for wanted, which in ((np.maximum(X, 0), 0), (X - X.min(0), 1)):
        adata.layers["raw"] = adata.X = form(X)
        with pytest.raises(ValueError, match="negative intensities") as caught:
            sn.pp.arcsinh(adata, 5, layer=layer)
        exec(calls_in(caught)[which], {"adata": adata, "np": np})
        found = adata.X if layer is None else adata.layers[layer]
        np.testing.assert_allclose(found.toarray() if sp.issparse(found) else found, wanted, rtol=1e-6)
        sn.pp.arcsinh(adata, 5, layer=layer)


@on(*READ_X)
@pytest.mark.usefixtures("no_long_work")
def test_scaled(run, adata):
    X = adata.X.toarray()
    adata.X = ((X - X.mean(0)) / X.std(0)).astype(np.float32)
    assert_refused(run, adata, ValueError, "negative", "scaled", "sc.pp.scale", "layer=")


@on(*READ_X)
@pytest.mark.usefixtures("no_long_work")
def test_text_in_x(run, adata):
    adata.layers["text"] = np.full(adata.shape, "1.5")
    assert_refused(run, adata, TypeError, "numeric", "astype", layer="text")


@on(*FACTORISE)
@pytest.mark.usefixtures("no_long_work")
@pytest.mark.parametrize("dense", [False, True], ids=["csr", "dense"])
def test_nothing_but_zeros(run, adata, dense):
    adata.X = np.zeros(adata.shape, np.float32) if dense else sp.csr_matrix(adata.shape, dtype=np.float32)
    assert_refused(run, adata, ValueError, "all zero")


@on(*FACTORISE)
@pytest.mark.usefixtures("no_long_work")
def test_x_is_missing(run, adata):
    bare = ad.AnnData(
        obs=adata.obs, var=adata.var, obsm={"spatial": adata.obsm["spatial"]}, layers={"counts": adata.layers["counts"]}
    )
    bare.obsp["contact_connectivities"] = adata.obsp["contact_connectivities"]
    assert_refused(run, bare, KeyError, "layer=", "counts")


@on(*FACTORISE)
def test_empty_cells_and_genes_are_allowed_and_reported(run, adata, caplog):
    X = adata.X.toarray()
    X[[3, 5]] = 0
    X[:, 2] = 0
    adata.X = sp.csr_matrix(X)
    with caplog.at_level("INFO", logger="spanmf"):
        run(adata)
    assert re.search(r"2 observations and 1 variables in use are all zero", caplog.text)
    key = run.__name__
    assert np.isfinite(adata.obsm[f"X_{key}"]).all()
    assert (adata.varm[f"{key}_loadings"][2] == 0).all()
    if run is nmf:
        assert (adata.obsm["X_nmf"][[3, 5]] == 0).all()


@on(*FACTORISE)
def test_raw_counts_are_warned_about(run, adata):
    with pytest.warns(sn._checks.SpanmfWarning, match=r"(?s)raw counts.*normalize_total.*log1p.*normalize=True"):
        run(adata, layer="counts")
    run(adata, layer="counts", normalize=True)  # says nothing
    run(adata, layer="counts", loss="kl")


# --- the table ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_long_work")
@pytest.mark.parametrize(("run", "n"), [(run, n) for run in ALL for n in (0, 1) if (run, n) != (project, 1)])
def test_empty_or_one_cell(run, adata, n):
    assert_refused(run, adata[:n].copy(), ValueError, f"{n} observations", "at least")


def test_project_one_cell(adata):
    one = adata[:1].copy()
    project(one)
    np.testing.assert_allclose(
        one.obsm["X_nmf"], sn.tl.project(adata, adata.copy(), copy=True).obsm["X_nmf"][:1], atol=1e-5
    )


@on(*ALL)
@pytest.mark.usefixtures("no_long_work")
def test_no_variables(run, adata):
    assert_refused(run, adata[:, :0].copy(), ValueError, "0 variables")


@on(*ALL)
@pytest.mark.usefixtures("no_long_work")
@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_duplicated_names(run, adata):
    names = adata.obs_names.tolist()
    names[4] = names[0]
    adata.obs_names = names
    assert_refused(run, adata, ValueError, "not unique", "cell0", "obs_names_make_unique")


@on(*ALL)
@pytest.mark.usefixtures("no_long_work")
def test_not_a_table(run):
    with pytest.raises(TypeError, match=r"AnnData.*DataFrame"):
        run(pd.DataFrame(np.ones((3, 3))))


def test_a_table_named_in_an_anndata(adata):
    assert_refused(
        hsnmf, adata, ValueError, "table_key='counts'", "this is an AnnData: leave it out", table_key="counts"
    )


# --- options without effect -----------------------------------------------------------------------------------------

IDLE = [
    (
        hsnmf,
        {"n_domains": 3, "resolution": 0.4},
        ["n_domains", "`resolution` has no effect"],
    ),  # the default, but asked for
    (hsnmf, {"n_domains": 3, "alpha": 0.5, "flavor": "igraph"}, ["potts", "`alpha` and `flavor` have no effect"]),
    (hsnmf, {"n_domains": 3, "clustering": "kmeans", "n_neighbors": 9}, ["kmeans", "`n_neighbors` has no effect"]),
    (hsnmf, {"n_domains": 3, "clustering": "leiden", "resolution": 1.0}, ["searched", "`resolution`"]),
    (hsnmf, {"n_domains": 3, "preset": "paper", "resolution": 1.0}, ["searched", "`resolution`"]),
    (hsnmf, {"smooth": False, "beta": 0.5}, ["smooth=False", "`beta`"]),
    (hsnmf, {"use_rep": "X_snmf"}, ["use_rep", "`n_components`"]),
    (hsnmf, {"smoothing": "laplacian", "n_steps": 3}, ["laplacian", "`n_steps`"]),
    (snmf, {"smoothing": "laplacian", "beta": 0.2}, ["laplacian", "`beta`"]),
    (snmf, {"laplacian_weight": 2.0}, ["refit", "`laplacian_weight`"]),
]


@pytest.mark.parametrize(("run", "kw", "words"), IDLE, ids=lambda v: "-".join(v) if isinstance(v, dict) else "")
@pytest.mark.usefixtures("no_long_work")
def test_options_without_effect_are_refused(run, kw, words, adata):
    assert_refused(run, adata, ValueError, *[re.escape(w) for w in words], **kw)


def test_options_that_ask_for_nothing_are_no_mistake(adata):
    sn.tl.hsnmf(adata, None, use_rep="X_snmf", layer=None, normalize=False, n_domains=3)
    assert "X_hsnmf" not in adata.obsm
    sn.tl.hsnmf(adata, 4, n_domains=3, preset="paper", tol=0.01)  # its resolution is published, not asked for
    assert adata.obsm["X_hsnmf"].shape[1] == 4
    assert adata.uns["hsnmf"]["params"]["n_domains"] == 3


# --- keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "kw", "words"),
    [
        (contact, {"spatial_key": "xy"}, ["xy", "obsm", "spatial"]),
        (contact, {"library_key": "core"}, ["core", "adata.obs", "sample"]),
        (hybrid, {"connectivity_key": "visium"}, ["visium", "contact_connectivities", "gr.contact_neighbors"]),
        (hybrid, {"use_rep": "X_pca"}, ["X_pca", "X_snmf"]),
        (hybrid, {"feature_key": "knn"}, ["knn", "contact_connectivities", "sc.pp.neighbors"]),
        (nmf, {"layer": "lognorm"}, ["lognorm", "counts"]),
        (nmf, {"mask_var": "markers"}, ["markers", "adata.var", "mask_var=None"]),
        (snmf, {"connectivity_key": "visium"}, ["visium", "gr.contact_neighbors", "sq.gr.spatial_neighbors"]),
        (snmf, {"layer": "lognorm"}, ["lognorm", "counts"]),
        (hsnmf, {"connectivity_key": "visium"}, ["visium", "gr.contact_neighbors", "sq.gr.spatial_neighbors"]),
        (hsnmf, {"layer": "lognorm"}, ["lognorm", "counts"]),
        (hsnmf, {"use_rep": "X_pca", "n_components": None}, ["X_pca", "X_snmf"]),
        (project, {"key": "joint"}, ["joint", "sn.tl"]),
        (project, {"layer": "lognorm"}, ["lognorm", "counts"]),
    ],
    ids=lambda v: v.__name__ if callable(v) else next(iter(v)) if isinstance(v, dict) else "",
)
@pytest.mark.usefixtures("no_long_work")
def test_missing_key(run, kw, words, adata):
    """A KeyError lists what is there and, where a call makes the slot, names it."""
    assert_refused(run, adata, KeyError, *[re.escape(w) for w in words], **kw)


@on(*FACTORISE)
@pytest.mark.usefixtures("no_long_work")
def test_list_of_layers_is_that_of_the_user(run, adata):
    """anndata 0.13 has X among the layers, under None: not a name to offer."""
    with pytest.raises(KeyError) as caught:
        run(adata, layer="lognorm")
    assert "holds 'counts'." in str(caught.value)


@on(*ON_GRAPH)
@pytest.mark.usefixtures("no_long_work")
def test_no_graph_names_both_calls(run, adata):
    del adata.obsp["contact_connectivities"]
    assert_refused(run, adata, KeyError, r"sn\.gr\.contact_neighbors\(adata\)", r"sq\.gr\.spatial_neighbors\(adata\)")


@pytest.mark.usefixtures("no_long_work")
def test_summary_without_a_graph():
    assert_refused(sn.gr.graph_summary, small_tissue(N, P), KeyError, r"gr\.contact_neighbors")


@on(*FACTORISE)
@pytest.mark.usefixtures("no_long_work")
@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.ones(P + 1, dtype=bool), f"length {P}"),
        (np.zeros(P, dtype=bool), "selects no"),
        (np.arange(P), "boolean"),
    ],
    ids=["length", "empty", "integer"],
)
def test_bad_mask(run, adata, mask, words):
    assert_refused(run, adata, ValueError, words, mask_var=mask)


# --- numbers and words ----------------------------------------------------------------------------------------------


@on(*FACTORISE)
@pytest.mark.usefixtures("no_long_work")
@pytest.mark.parametrize(
    ("k", "error", "words"),
    [
        (0, ValueError, "at least 1"),
        (-3, ValueError, "-3"),
        (P + 1, ValueError, rf"{P + 1}.*{N}.*{P}"),
        (2.5, TypeError, "integer"),
        ("ten", TypeError, "'ten'"),
        (True, TypeError, "True"),
    ],
)
def test_bad_n_components(run, adata, k, error, words):
    assert_refused(run, adata, error, "n_components", words, n_components=k)


@on(*FACTORISE)
@pytest.mark.usefixtures("no_long_work")
def test_n_components_is_held_against_the_variables_in_use(run, adata):
    mask = np.arange(P) < 3
    assert_refused(run, adata, ValueError, "n_components", r"min\(120, 3\)", "mask_var=None", mask_var=mask)


@pytest.mark.parametrize(
    ("run", "kw", "error", "words"),
    [
        (nmf, {"max_iter": 0}, ValueError, ["max_iter"]),
        (nmf, {"tol": -1e-4}, ValueError, ["tol"]),
        (nmf, {"alpha_W": -0.1}, ValueError, ["alpha_W"]),
        (nmf, {"alpha_H": np.nan}, ValueError, ["alpha_H"]),
        (nmf, {"l1_ratio": 1.5}, ValueError, ["l1_ratio", "at most 1"]),
        (nmf, {"loss": "poisson"}, ValueError, ["loss", "'frobenius'", "'kl'"]),
        (nmf, {"init": "svd"}, ValueError, ["init", "nndsvda"]),
        (nmf, {"preset": "published"}, ValueError, ["preset", "'paper'"]),
        (nmf, {"rng": -1}, ValueError, ["rng"]),
        (nmf, {"rng": "seed"}, ValueError, ["rng"]),
        (snmf, {"beta": 1.2}, ValueError, ["beta", "at most 1"]),
        (snmf, {"n_steps": -1}, ValueError, ["n_steps"]),
        (snmf, {"n_steps": 1.5}, TypeError, ["n_steps", "integer"]),
        (hsnmf, {"n_steps": "two"}, ValueError, ["n_steps", "'auto' or an integer"]),
        (snmf, {"smoothing": "blur"}, ValueError, ["smoothing", "'refit'", "'diffuse'", "'laplacian'"]),
        (snmf, {"smoothing": "laplacian", "laplacian_weight": -1.0}, ValueError, ["laplacian_weight"]),
        (snmf, {"loss": "poisson"}, ValueError, ["loss"]),
        (snmf, {"preset": "published"}, ValueError, ["preset"]),
        (hsnmf, {"alpha": 1.5}, ValueError, ["alpha", "at most 1"]),
        (hsnmf, {"alpha": "half"}, TypeError, ["alpha"]),
        (hsnmf, {"resolution": -0.4}, ValueError, ["resolution"]),
        (hsnmf, {"n_domains": 0}, ValueError, ["n_domains"]),
        (hsnmf, {"n_domains": 2.5}, TypeError, ["n_domains", "integer"]),
        (hsnmf, {"n_domains": N + 1}, ValueError, ["n_domains"]),
        (hsnmf, {"clustering": "louvain"}, ValueError, ["clustering", "'potts'", "'kmeans'", "'leiden'"]),
        (hsnmf, {"flavor": "louvain"}, ValueError, ["flavor", "'networkit'", "'igraph'", "'leidenalg'"]),
        (hsnmf, {"scale": "unit"}, ValueError, ["scale", "'gram'", "'norm'", "None"]),
        (hsnmf, {"smoothing": "blur"}, ValueError, ["smoothing"]),
        (hsnmf, {"n_neighbors": 1}, ValueError, ["n_neighbors"]),
        (hsnmf, {"preset": "published"}, ValueError, ["preset"]),
        (hybrid, {"alpha": -0.1}, ValueError, ["alpha"]),
        (hybrid, {"alpha": 1.1}, ValueError, ["alpha"]),
        (hybrid, {"n_neighbors": 0}, ValueError, ["n_neighbors"]),
        (hybrid, {"scale": "unit"}, ValueError, ["scale"]),
        (contact, {"contact_radius": 0}, ValueError, ["contact_radius", "more than 0"]),
        (contact, {"contact_radius": -20}, ValueError, ["contact_radius"]),
        (contact, {"contact_radius": np.nan}, ValueError, ["contact_radius"]),
        (contact, {"contact_radius": "20 µm"}, TypeError, ["contact_radius", "number"]),
        (contact, {"context_radius": 15}, ValueError, ["context_radius", "15", "contact_radius", "20", "or 0"]),
        (contact, {"context_radius": -1}, ValueError, ["context_radius"]),
        (contact, {"contact_weight": -1.0}, ValueError, ["contact_weight"]),
        (contact, {"contact_weight": 0.0}, ValueError, ["contact_weight"]),
        (contact, {"context_weight": np.inf}, ValueError, ["context_weight"]),
        (contact, {"combine": "min"}, ValueError, ["combine", "'max'", "'sum'", "'mean'"]),
        (contact, {"preset": "published"}, ValueError, ["preset", "'paper'"]),
    ],
    ids=lambda v: v.__name__ if inspect.isfunction(v) else repr(v) if isinstance(v, dict) else "",
)
@pytest.mark.usefixtures("no_long_work")
def test_bad_parameter(run, kw, error, words, adata):
    """The message names the parameter and what is allowed."""
    assert_refused(run, adata, error, *[re.escape(w) for w in words], **kw)


@pytest.mark.parametrize("kw", [{"loss": "kl"}, {"alpha_W": 0.1}, {"alpha_H": 0.1}], ids=lambda kw: next(iter(kw)))
@pytest.mark.usefixtures("no_long_work")
def test_laplacian_is_frobenius_without_elastic_net(kw, adata):
    assert_refused(snmf, adata, ValueError, "laplacian", next(iter(kw)), smoothing="laplacian", **kw)


@pytest.mark.usefixtures("no_long_work")
@pytest.mark.parametrize("clustering", ["potts", "kmeans"])
def test_clustering_into_how_many(clustering, adata):
    assert_refused(hsnmf, adata, ValueError, "n_domains", clustering, clustering=clustering)


# --- coordinates, radii, libraries ----------------------------------------------------------------------------------


def test_missing_coordinates(adata):
    del adata.obsm["spatial"]
    assert_refused(contact, adata, KeyError, "'spatial'", "obsm", "X_snmf", "Put the coordinates")


@pytest.mark.parametrize(
    ("coords", "error", "words"),
    [
        (np.ones((N, 1)), ValueError, rf"\({N}, 1\)"),
        (np.ones((N, 4)), ValueError, "2 or 3 columns"),
        (np.full((N, 2), "1"), TypeError, "numeric"),
        (np.full((N, 2), 1 + 1j), TypeError, "numeric"),
    ],
    ids=["one column", "four columns", "text", "complex"],
)
def test_bad_coordinates(coords, error, words, adata):
    adata.obsm["spatial"] = coords
    assert_refused(contact, adata, error, "spatial", words)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_coordinates_that_are_not_finite(value, adata):
    adata.obsm["spatial"][[2, 9], 1] = value
    assert_refused(contact, adata, ValueError, "2 of 120", "NaN or infinite", "isfinite")


def test_all_cells_isolated(adata):
    """The error names the median distance to the nearest neighbour, from which a radius can be chosen."""
    assert_refused(contact, adata, ValueError, "0.0001", "median", "radii", contact_radius=1e-4, context_radius=0)


@on(*ON_GRAPH)
@pytest.mark.usefixtures("no_long_work")
def test_graph_without_edges(run, adata):
    adata.obsp["contact_connectivities"] = sp.csr_matrix((N, N), dtype=np.float32)
    assert_refused(run, adata, ValueError, "no edge|isolated", "contact_connectivities")


def test_radius_far_too_large():
    """More than 1,000 neighbours a cell: the error forecasts the memory."""
    adata = small_tissue(1500, 5)
    assert_refused(
        contact, adata, ValueError, "neighbours", "radius", r"[MG]i?B", contact_radius=20, context_radius=1e5
    )


def test_unit_mix_up_is_warned_about():
    """Coordinates in millimetres under radii in µm (too many), or the other way round (almost all isolated)."""
    adata = small_tissue(600, 5)
    adata.obsm["spatial"] *= 3
    with pytest.warns(sn._checks.SpanmfWarning, match=r"586 of 600 observations have no neighbour.*median"):
        contact(adata, contact_radius=4, context_radius=0)


def test_library_with_one_cell(adata):
    adata.obs["core"] = pd.Categorical(["only"] + ["rest"] * (N - 1))
    assert_refused(contact, adata, ValueError, "only", "one observation", "core", library_key="core")


def test_library_unknown_for_some(adata):
    adata.obs["core"] = pd.Categorical([None, None] + ["rest"] * (N - 2))
    assert_refused(contact, adata, ValueError, "core", "2 observations", library_key="core")


# --- graphs that do not fit -----------------------------------------------------------------------------------------


@on(*ON_GRAPH)
@pytest.mark.usefixtures("no_long_work")
@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_graph_with_bad_weights(run, value, adata):
    adata.obsp["contact_connectivities"].data[3] = value
    assert_refused(run, adata, ValueError, "contact_connectivities", "finite, non-negative")


def test_graph_of_another_size(adata):
    """AnnData refuses one in ``obsp``; the array forms must."""
    graph = with_slots(small_tissue(N - 1, P)).obsp["contact_connectivities"]
    with pytest.raises(ValueError, match=r"120 entries.*119 observations"):
        sn.metrics.morans_i(graph, adata.obsm["X_nmf"])
    with pytest.raises(ValueError, match=r"120 entries.*119 observations"):
        sn.metrics.edge_agreement(graph, adata.obs["domain"].to_numpy())
    with pytest.raises(ValueError, match=r"119, 119.*120"):
        sn._checks.check_square(graph, N, "the graph")


# --- new cells ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_long_work")
def test_project_without_common_genes(adata):
    adata.var_names = [f"other{j}" for j in range(P)]
    assert_refused(project, adata, ValueError, "gene|variable", "other0|gene0")


@pytest.mark.usefixtures("no_long_work")
def test_project_onto_a_table_without_factors(adata):
    before = snapshot(adata)
    with pytest.raises(KeyError, match=r"X_nmf|nmf_loadings"):
        sn.tl.project(adata, small_tissue(N, P))
    assert changed(before, snapshot(adata)) == []


@pytest.mark.parametrize("key", ["hsnmf", "joint"])
def test_top_features_of_what_is_not_there(key, adata):
    assert_refused(lambda a: sn.tl.top_features(a, key), adata, KeyError, f"X_{key}", "X_nmf", r"sn\.tl\.")


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 100, 5000], ids=["empty", "header", "half"])
def test_truncated_file(keep, adata, tmp_path):
    whole, part = tmp_path / "whole.h5ad", tmp_path / "part.h5ad"
    adata.write_h5ad(whole)
    part.write_bytes(whole.read_bytes()[:keep])
    with pytest.raises((OSError, ValueError), match=r"part\.h5ad"):
        sn.io.read(part)


def test_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.h5ad"):
        sn.io.read(tmp_path / "none.h5ad")
