"""Names of factors and types of observations: markers in every form, slow scores, ambiguity said, bad input."""

from __future__ import annotations

import mudata as md
import numpy as np
import pandas as pd
import pytest
from scipy.stats import hypergeom, multivariate_normal
from support import changed, small_tissue, snapshot

import spanmf as sn
from spanmf import _marker_sets, _mudata
from spanmf.core import _annotation
from spanmf.datasets._expression import MARKERS
from spanmf.datasets._rna_protein import PROTEINS, SAME_RNA

TYPES = [
    "epithelial",
    "tumour",
    "fibroblast",
    "CD4 T",
    "B",
    "macrophage",
    "endothelial",
    "smooth muscle",
    "CD8 T",
    "plasma",
]
SAME = {b: a for a, b in SAME_RNA}
PLANTED = {
    t: {"gene": MARKERS[SAME.get(t, t)].split(), "protein": [p for p, c in PROTEINS.items() if t in c]} for t in TYPES
}


def factorised(missing: float, seed: int = 0) -> md.MuData:
    mdata = sn.datasets.rna_protein_tissue(2000, missing=missing, rng=seed)
    sn.tl.joint_nmf(mdata, 12)
    return mdata


@pytest.fixture(scope="module")
def complete() -> md.MuData:
    return factorised(0.0)


@pytest.fixture(scope="module")
def partial() -> md.MuData:
    return factorised(0.3)


def names_of(*markers: str, features: list[str]) -> set[str]:
    return {features[j] for j in _marker_sets.find(markers, _marker_sets.FeatureIndex.of(features))}


@pytest.mark.parametrize(
    ("marker", "feature"),
    [
        ("CD8", "CD8A"), ("CD8A", "CD8"), ("cd3", "Cd3e"), ("CD20", "MS4A1"), ("CD31", "PECAM1"), ("SMA", "ACTA2"),
        ("α-SMA", "Acta2"), ("PanCK", "KRT8"), ("KRT19", "Pan-Cytokeratin"), ("CK7", "KRT7"), ("HLA-DR", "HLA-DRA"),
        ("HLA.DR", "HLADR"), ("CD45RO", "PTPRC"), ("CD3", "CD3_TotalSeqB"), ("CD19", "CD19_PROT"), ("Ki-67", "MKI67"),
        ("E-cadherin", "CDH1"), ("Her2", "ERBB2"), ("CD138", "SDC1"), ("F4/80", "Adgre1"),
    ],
)  # fmt: skip
def test_names_of_one_molecule(marker: str, feature: str) -> None:
    assert names_of(marker, features=["GAPDH", feature, "ACTB"]) == {feature}


@pytest.mark.parametrize(("marker", "feature"), [("CD4", "CD40"), ("KRT5", "KRT14"), ("CD3", "CD36"), ("CK7", "CKB")])
def test_names_of_two_molecules(marker: str, feature: str) -> None:
    assert not names_of(marker, features=[feature])


def test_every_form_of_markers(tmp_path, complete: md.MuData) -> None:
    as_lists = {t: [*m["gene"], *m["protein"]] for t, m in PLANTED.items()}
    tidy = pd.DataFrame(
        [(t, n, kind) for t, m in PLANTED.items() for kind in m for n in m[kind]],
        columns=["cell_type", "marker", "kind"],
    )
    tidy.to_csv(tmp_path / "m.csv", index=False)
    tidy.to_csv(tmp_path / "m.tsv", index=False, sep="\t")
    (tmp_path / "m.gmt").write_text("".join(f"{t}\t\t" + "\t".join(m) + "\n" for t, m in as_lists.items()))
    expected = sn.tl.annotate_factors(complete, PLANTED)
    for form in (tidy, tmp_path / "m.csv", str(tmp_path / "m.tsv")):
        pd.testing.assert_frame_equal(sn.tl.annotate_factors(complete, form), expected)
    plain = sn.tl.annotate_factors(complete, as_lists)
    for form in (tmp_path / "m.gmt", tidy[["cell_type", "marker"]]):
        pd.testing.assert_frame_equal(sn.tl.annotate_factors(complete, form), plain)


def test_built_in_table() -> None:
    table = sn.datasets.cell_markers()
    assert not table.isna().any().any()
    assert not table.duplicated(["cell_type", "marker", "kind"]).any()
    assert set(table["kind"]) == {"gene", "protein"}
    assert table["source"].str.contains(r"\d{4}").all()


@pytest.mark.real
def test_built_in_table_is_not_another_database(real_data) -> None:
    """Rows are our own: types and lists differ from ScType's."""
    ours = sn.datasets.cell_markers().query("kind == 'gene'").groupby("cell_type")["marker"].agg(set)
    theirs = pd.read_csv(real_data / "markers_sctype_full.csv")
    column = next(c for c in theirs.columns if "more1" in c.lower() or "gene" in c.lower())
    lists = [set(str(x).replace(" ", "").split(",")) for x in theirs[column].dropna()]
    assert max(len(a & b) / len(a | b) for a in ours for b in lists) < 0.7


def test_overlap_is_the_slow_one(complete: md.MuData) -> None:
    markers = {"B": {"gene": ["MS4A1", "CD79A", "nowhere"], "protein": ["CD20"]}, "T": {"gene": ["CD3E", "CD3D"]}}
    table = sn.tl.annotate_factors(complete, markers, rank_by="loading", threshold=-1)
    paper = sn.tl.annotate_factors(complete, markers, preset="paper")
    rna, protein = complete.mod["rna"], complete.mod["protein"]
    for r in range(12):
        genes = set(rna.var_names[np.argsort(-rna.varm["joint_nmf_loadings"][:, r])[:10]])
        proteins = set(protein.var_names[np.argsort(-protein.varm["joint_nmf_loadings"][:, r])[:5]])
        g, p = len({"MS4A1", "CD79A"} & genes), len({"CD20"} & proteins)
        t = len({"CD3E", "CD3D"} & genes)
        ours = {"B": (g / 3 + 1.5 * p / 2) / 2.5, "T": t / 3}
        published = {"B": (g / 3 + 1.5 * p) / 2.5, "T": t / 2 / 2.5}
        for found, slow in ((table, ours), (paper, published)):
            assert found["score"][r] == pytest.approx(max(slow.values()), abs=1e-6)
            if slow["B"] != slow["T"]:
                assert found["margin"][r] == pytest.approx(abs(slow["B"] - slow["T"]), abs=1e-6)
                assert found["second"][r] == min(slow, key=slow.get)
        assert paper["cell_type"][r] == (
            "Unknown" if max(published.values()) == 0 else max(published, key=published.get)
        )


def test_chance_is_that_of_random_lists() -> None:
    assert _annotation.chance([2], [5], [10], [100]) == pytest.approx(hypergeom.sf(1, 100, 5, 10))
    rng = np.random.default_rng(0)
    drawn = [sum((rng.permutation(n)[:k] < m).sum() for n, k, m in ((30, 6, 5), (12, 4, 3))) for _ in range(20_000)]
    assert _annotation.chance([2, 1], [5, 3], [6, 4], [30, 12]) == pytest.approx(
        np.mean(np.array(drawn) >= 3), abs=0.01
    )
    assert _annotation.chance([0], [5], [10], [100]) == 1


@pytest.mark.parametrize("method", ["overlap", "correlation"])
def test_factors_get_their_types(complete: md.MuData, method: str) -> None:
    table = sn.tl.annotate_factors(complete, PLANTED, method=method)
    truth = complete.mod["rna"].obs["cell_type"].to_numpy()
    right = 0
    for r in range(12):
        strongest = np.argsort(-complete.obsm["X_joint_nmf"][:, r])[:40]
        right += table["cell_type"][r] == pd.Series(truth[strongest]).mode()[0]
    assert right >= 7
    stored = complete.uns["annotate_factors"]["table"]
    assert list(stored["cell_type"]) == list(table["cell_type"])


def test_correlation_is_pearson(complete: md.MuData) -> None:
    table = sn.tl.annotate_factors(
        complete, {"m": {"protein": ["CD68"]}, "t": {"protein": ["CD3"]}}, method="correlation", threshold=-1
    )
    protein = complete.mod["protein"].copy()
    sn.pp.clr(protein)
    W = complete.obsm["X_joint_nmf"]
    r = {
        t: [np.corrcoef(W[:, k], protein[:, m].X.ravel())[0, 1] / 2 for k in range(12)]
        for t, m in (("m", "CD68"), ("t", "CD3"))
    }
    np.testing.assert_allclose(table["score"], np.maximum(r["m"], r["t"]), atol=1e-4)


def test_unknown_below_the_threshold(complete: md.MuData) -> None:
    assert (sn.tl.annotate_factors(complete, PLANTED, threshold=2.0)["cell_type"] == "Unknown").all()
    sn.tl.assign_types(complete, PLANTED, threshold=2.0, key_added="none")
    assert list(complete.obs["none"].cat.categories) == ["Unknown"]


def test_one_table(complete: md.MuData) -> None:
    adata = complete.mod["protein"].copy()
    sn.pp.clr(adata)
    sn.tl.nmf(adata, 10)
    table = sn.tl.annotate_factors(adata, key="nmf")
    assert {"endothelial cell", "macrophage"} <= set(table["cell_type"])
    sn.tl.assign_types(adata, {t: m["protein"] for t, m in PLANTED.items()}, key="nmf")
    truth = adata.obs["cell_type"].astype(str).replace({"plasma": "B"})
    assert (adata.obs["assign_types"].astype(str).replace({"plasma": "B"}) == truth).mean() > 0.85


def test_types_are_right_and_confidence_is_honest(complete: md.MuData, partial: md.MuData) -> None:
    for mdata, least in ((complete, 0.95), (partial, 0.85)):
        sn.tl.assign_types(mdata, PLANTED)
        right = (
            mdata.obs["assign_types"].astype(str).to_numpy() == mdata.mod["rna"].obs["cell_type"].astype(str).to_numpy()
        )
        assert right.mean() > least
    there = np.isin(partial.obs_names, partial.mod["protein"].obs_names)
    truth, sure = (
        partial.mod["rna"].obs["cell_type"].astype(str).to_numpy(),
        partial.obs["assign_types_confidence"].to_numpy(),
    )
    assert abs(sure[~there].mean() - right[~there].mean()) < 0.12
    # without protein RNA does not tell the pairs apart, but does tell B from plasma
    alike = np.isin(truth, [t for pair in SAME_RNA for t in pair])
    assert sure[~there & alike].mean() < 0.85
    assert sure[~there & np.isin(truth, ["B", "plasma", "macrophage"])].mean() > 0.95
    assert sure[there].mean() > 0.95


def test_neighbours_help_what_is_missing(partial: md.MuData) -> None:
    mdata = _mudata.copy(partial)
    truth = mdata.mod["rna"].obs["cell_type"].astype(str).to_numpy()
    sn.gr.contact_neighbors(mdata.mod["rna"])
    there = np.isin(mdata.obs_names, mdata.mod["protein"].obs_names)
    right = {}
    for use in (False, True):
        sn.tl.assign_types(mdata, PLANTED, use_neighbors=use)
        right[use] = mdata.obs["assign_types"].astype(str).to_numpy() == truth
    assert right[True][~there].mean() > right[False][~there].mean() + 0.08
    assert (right[True] == right[False])[there].all()


def test_discriminant_is_bayes_rule() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=400)
    W = rng.normal(size=(400, 2)) @ np.array([[1, 0.6], [0, 0.5]]) + np.array([[0, 0], [3, 0], [0, 3]])[labels]
    model = _annotation.Discriminant.of(W, labels, 3)
    means = np.array([W[labels == c].mean(0) for c in range(3)])
    centred = W - means[labels]
    density = (
        np.stack([multivariate_normal(m, centred.T @ centred / 400).pdf(W) for m in means], axis=1)
        * np.bincount(labels)
        / 400
    )
    np.testing.assert_allclose(model.posterior(W), density / density.sum(1, keepdims=True), atol=5e-3)


def test_template_correlation_is_the_weighted_one() -> None:
    rng = np.random.default_rng(0)
    values, at = rng.normal(size=(4, 9)), [np.array([0, 1, 2]), np.array([2, 5]), np.zeros(0, dtype=int)]
    found = _annotation.template_correlation(values, at)
    markers, weight = np.array([0, 1, 2, 5]), np.array([1, 1, 0.5, 1])
    for c in range(4):
        for t in range(2):
            C = np.cov(values[c, markers], np.isin(markers, at[t]), aweights=weight)
            assert found[c, t] == pytest.approx(C[0, 1] / np.sqrt(C[0, 0] * C[1, 1]))
    assert not found[:, 2].any()


def test_dominant_takes_the_annotation(complete: md.MuData) -> None:
    mdata = _mudata.copy(complete)
    mdata.uns.pop("annotate_factors", None)
    with pytest.raises(KeyError, match="annotate_factors"):
        sn.tl.assign_types(mdata, method="dominant")
    table = sn.tl.annotate_factors(mdata, PLANTED)
    sn.tl.assign_types(mdata, method="dominant")
    expected = table["cell_type"].to_numpy()[mdata.obs["joint_nmf"].astype(int)]
    assert (mdata.obs["assign_types"].astype(str).to_numpy() == expected).all()
    assert mdata.obs["assign_types_confidence"].between(0, 1).all()


def test_same_seed_same_types(partial: md.MuData) -> None:
    for key in ("a", "b"):
        sn.tl.assign_types(partial, PLANTED, rng=5, key_added=key)
    assert (partial.obs["a"] == partial.obs["b"]).all()
    assert (partial.obs["a_confidence"] == partial.obs["b_confidence"]).all()


@pytest.mark.parametrize(
    ("markers", "options", "error", "match"),
    [
        ({"x": ["NOPE1"], "y": ["NOPE2"]}, {}, ValueError, "None of the markers.*'NOPE1'.*var_names"),
        ({"gene0": []}, {}, ValueError, "gives no gene"),
        ({}, {}, ValueError, "empty"),
        ({"x": "gene1"}, {}, TypeError, "list of names"),
        (["gene1"], {}, TypeError, "mapping"),
        ({"x": {"genes": ["gene1"]}}, {}, ValueError, "must be among '', 'gene', 'protein'"),
        (pd.DataFrame({"T": ["gene1"], "B": ["gene2"]}), {}, ValueError, r"no column 'cell_type', 'marker'.*melt"),
        (
            pd.DataFrame({"cell_type": ["a"], "marker": ["gene1"], "kind": ["rna"]}),
            {},
            ValueError,
            "'gene', 'protein' or nothing, not 'rna'",
        ),
        ("nowhere.csv", {}, FileNotFoundError, "nowhere.csv"),
        ({"x": ["gene1"]}, {"method": "guess"}, ValueError, "`method` must be one of"),
        ({"x": ["gene1"]}, {"key": "gone"}, KeyError, "gone"),
    ],
)
def test_bad_markers(markers, options, error, match) -> None:
    adata = small_tissue(100)
    sn.tl.nmf(adata, 4)
    before = snapshot(adata)
    for function in (sn.tl.annotate_factors, sn.tl.assign_types):
        with pytest.raises(error, match=match):
            function(adata, markers, **({"key": "nmf"} | options))
    assert not changed(before, snapshot(adata))


def test_one_type_only() -> None:
    adata = small_tissue(100)
    sn.tl.nmf(adata, 4)
    with pytest.raises(ValueError, match="one type only"):
        sn.tl.assign_types(adata, {"x": ["gene1"], "y": ["NOPE"]}, key="nmf")
    table = sn.tl.annotate_factors(adata, {"x": ["gene1"]}, key="nmf")
    assert table["margin"].isna().all()


@pytest.mark.real
def test_a_marker_file_of_another_layout(real_data) -> None:
    adata = small_tissue(100)
    sn.tl.nmf(adata, 4)
    with pytest.raises(ValueError, match=r"markers_sctype_full\.csv.*no column"):
        sn.tl.annotate_factors(adata, real_data / "markers_sctype_full.csv", key="nmf")


def test_plot_shows_genes_beside_proteins(complete: md.MuData) -> None:
    from matplotlib import pyplot as plt

    table = sn.tl.annotate_factors(complete, PLANTED)
    figure = sn.pl.modality_loadings(complete, n_features=4, components=[2, 0])
    panels = figure.axes
    assert [p.get_title() for p in panels] == ["rna", "protein"] * 2
    assert [f.get_suptitle() for f in figure.subfigs] == [f"factor {k}: {table['cell_type'][k]}" for k in (2, 0)]
    H = complete.mod["protein"].varm["joint_nmf_loadings"][:, 2]
    best = complete.mod["protein"].var_names[np.argsort(-H)[:4]]
    assert [t.get_text() for t in panels[1].get_yticklabels()] == list(best)
    np.testing.assert_allclose([b.get_width() for b in panels[1].patches], np.sort(H)[::-1][:4] / H.sum(), rtol=1e-5)
    plain = sn.pl.modality_loadings(complete, annotation_key=None, components=[1])
    assert plain.subfigs[0].get_suptitle() == "factor 1"
    plt.close("all")
    with pytest.raises(TypeError, match=r"pl\.loadings"):
        sn.pl.modality_loadings(complete.mod["rna"])
    with pytest.raises(KeyError, match="joint_nmf"):
        sn.pl.modality_loadings(complete, "gone")
    with pytest.raises(ValueError, match="components"):
        sn.pl.modality_loadings(complete, components=[99])
