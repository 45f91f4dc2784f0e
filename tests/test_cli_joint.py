"""``run_joint`` and ``spanmf joint``: what they leave, that both do the same, and what they refuse."""

from __future__ import annotations

import inspect
import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import mudata
import numpy as np
import pandas as pd
import pytest
from support import changed, snapshot
from support import run_cli as run

import spanmf as sn
from spanmf import _cli_joint, _joint_run, _marker_sets, _options
from spanmf._checks import SpanmfWarning
from spanmf._report import _joint

N, K = 700, 10
MARKERS = {  # of the types planted in the tissue, as people write them
    "B": ["MS4A1", "CD79A", "CD19", "CD20"], "plasma": ["MZB1", "XBP1", "CD138"], "CD4 T": ["CD3E", "CD4", "IL7R"],
    "CD8 T": ["CD3E", "CD8A", "CD8"], "macrophage": ["CD68", "C1QA", "CD14", "CD163"], "endothelial": ["PECAM1", "VWF", "CD31"],
    "fibroblast / stroma": ["COL1A1", "DCN", "LUM"], "epithelial, luminal": ["EPCAM", "KRT8", "PanCK", "CDH1"],
}  # fmt: skip
FILES = {
    "report.html", "cell_types.png", "colocalization.png", "niches.png", "factors.png", "modality_loadings.png", "shared_labels.csv", "co_localization.csv",
    "niche_composition.csv", "nmf_factors.csv", "factor_types.csv", "W_transcript.npy", "W_protein.npy", "H_shared.npy", "result.h5mu",
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore::spanmf._checks.ConvergenceWarning")


@pytest.fixture(scope="module")
def tissue():
    return sn.datasets.rna_protein_tissue(N, missing=0.2)


@pytest.fixture(scope="module")
def files(tissue, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("input")
    for name in ("rna", "protein"):
        tissue.mod[name].write_h5ad(folder / f"{name}.h5ad")
    rows = [(t, m) for t, markers in MARKERS.items() for m in markers]
    pd.DataFrame(rows, columns=["cell_type", "marker"]).to_csv(folder / "markers.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def done(files, tmp_path_factory):
    """A whole run, and its words."""
    out = tmp_path_factory.mktemp("run") / "new" / "results"
    given = ("--n-factors", K, "--radius", 40, "--markers", files / "markers.csv", "--n-niches", 5)
    return out, *run("joint", "--tx", files / "rna.h5ad", "--prot", files / "protein.h5ad", *given, "-o", out)


@pytest.fixture(scope="module")
def result(tissue):
    before = {m: snapshot(t) for m, t in tissue.mod.items()}
    found = sn.run_joint(tissue.mod["rna"], tissue.mod["protein"], n_factors=K, radius=40, markers=MARKERS, n_niches=5)
    assert [changed(before[m], snapshot(t)) for m, t in tissue.mod.items()] == [[], []], "a table was touched"
    return found


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr(_joint_run, "_draw", lambda *_: [])
    monkeypatch.setattr(_joint_run, "_report", lambda *_: None)


def test_a_whole_run_leaves_what_is_promised(done, files):
    out, status, words, errors = done
    assert status == 0, errors
    assert {p.name for p in out.iterdir()} == FILES
    assert [p.name for p in out.parent.iterdir()] == ["results"], "something was left beside"
    assert all(name in words for name in FILES)
    assert "560 matched by name" in errors
    labels = pd.read_csv(out / "shared_labels.csv")
    assert labels.columns.tolist() == ["cell_id", "x", "y", "cell_type"]
    assert len(labels) == N
    genes, proteins, shared = (np.load(out / f"{n}.npy") for n in ("W_transcript", "W_protein", "H_shared"))
    assert (genes.shape, proteins.shape, shared.shape) == ((300, K), (30, K), (K, N))
    factors = pd.read_csv(out / "nmf_factors.csv", index_col="cell_id")
    np.testing.assert_allclose(factors.to_numpy().T, shared, rtol=1e-5, atol=1e-6)
    niches = pd.read_csv(out / "niche_composition.csv", index_col="cell_id")
    assert niches.columns[:2].tolist() == ["n_neighbors", "niche"]
    np.testing.assert_allclose(niches.iloc[:, 2:].sum(axis=1)[niches["n_neighbors"] > 0], 1, rtol=1e-5)
    types = labels["cell_type"].unique()
    assert set(niches.columns[2:]) == set(types)
    pairs = pd.read_csv(out / "co_localization.csv")
    assert len(pairs) == len(types) * (len(types) + 1) // 2
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Cell types by RNA and protein" in page
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings[1:6] == ["Cell types", "Factors", "RNA and protein", "Who lies next to whom", "Niches"]
    for name in (
        'alt="Top genes and proteins of each factor"',
        'alt="Ratios of all pairs of types"',
        'alt="Niches, and what',
    ):
        assert name in page
    assert "pairs of cells within 40 µm of each other" in page
    near = pairs[pairs["a"] != pairs["b"]].nlargest(1, "ratio").iloc[0]
    assert f"<td>{near['a']} – {near['b']}</td>" in page
    assert all(name in page for name in niches["niche"].unique())
    words = re.sub("<[^>]*>", "", page.split('<section id="numbers">')[0].split("</style>")[1])
    assert "domain" not in words.lower()
    for name in (n for n in FILES if n.endswith(".png")):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("sure", [0.6, 0.95])
def test_the_page_warns_of_cells_whose_types_are_less_sure_for_what_they_lack(tissue, sure):
    has_protein = tissue.mod["rna"].obs_names.isin(tissue.mod["protein"].obs_names)
    cells = tissue.mod["rna"].obs_names
    obs = pd.DataFrame({"type_confidence": np.where(has_protein, 0.98, sure)}, index=cells)
    mdata = SimpleNamespace(mod=tissue.mod, obs=obs, obs_names=cells)
    told = list(_joint._unsure(mdata, "type"))
    assert len(told) == (sure < 0.9)
    assert all("140 cells (20 %) have rna only" in t and "60 %" in t and "98 %" in t for t in told)


def test_a_result_is_printed_in_lines(result):
    words = repr(result)
    assert len(words) < 1000
    assert f"H_shared: {K} × {N}" in words
    assert all(t in words for t in result.cell_types)


def test_python_and_shell_do_the_same(done, result):
    out = done[0]
    pd.testing.assert_frame_equal(pd.read_csv(out / "shared_labels.csv", index_col=0), result.shared_labels, check_dtype=False, check_index_type=False)  # fmt: skip
    np.testing.assert_array_equal(np.load(out / "H_shared.npy"), result.H_shared)
    pairs = pd.read_csv(out / "co_localization.csv")
    np.testing.assert_allclose(pairs["ratio"], result.co_localization["ratio"])


@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::UserWarning", "ignore:The inplace keyword:DeprecationWarning"
)
def test_stored_mudata_comes_back(done, result):
    mdata = mudata.read_h5mu(done[0] / "result.h5mu")
    np.testing.assert_array_equal(mdata.obsm["X_joint_nmf"], result.H_shared.T)
    assert mdata.obs["cell_type"].astype(str).tolist() == result.shared_labels["cell_type"].tolist()
    assert {"cell_type_confidence", "niche"} <= set(mdata.obs)
    np.testing.assert_array_equal(mdata.obsm["spatial"], result.shared_labels[["x", "y"]])
    assert len(mdata.uns["colocalization"]["table"]) == len(result.co_localization)


def test_types_are_the_planted_ones(result, tissue):
    """By markers of eight of ten types; names with commas and slashes stay as they are."""
    truth = tissue.mod["rna"].obs["cell_type"].astype(str)
    found = result.shared_labels["cell_type"].reindex(truth.index)
    for name in ("B", "plasma", "macrophage", "endothelial"):
        assert (found[truth == name] == name).mean() > 0.8, name
    assert "fibroblast / stroma" in result.cell_types
    assert "fibroblast / stroma" in result.niche_composition.columns
    assert set(result.cell_types) == set(result.shared_labels["cell_type"])
    assert set(result.factor_types["cell_type"]) - {"Unknown"} <= set(MARKERS)


def test_it_is_what_the_functions_make(result, tissue):
    mdata = sn.pp.align_modalities(tissue.mod["rna"], tissue.mod["protein"])
    sn.tl.joint_nmf(mdata, K)
    np.testing.assert_array_equal(mdata.obsm["X_joint_nmf"].T, result.H_shared)
    sn.tl.assign_types(mdata, MARKERS)
    assert mdata.obs["assign_types"].astype(str).tolist() == result.shared_labels["cell_type"].tolist()
    np.testing.assert_array_equal(mdata.mod["protein"].varm["joint_nmf_loadings"], result.W_protein)
    rna = tissue.mod["rna"].copy()
    rna.obs["t"] = result.shared_labels["cell_type"].to_numpy()
    pairs = sn.gr.colocalization(rna, "t", radius=40)
    np.testing.assert_allclose(pairs["z"], result.co_localization["z"])


@pytest.mark.usefixtures("no_figures")
def test_sections_matched_by_place(tissue, tmp_path):
    """Cells of the proteome alone lie where it has them; a figure shows the match."""
    rna, protein = tissue.mod["rna"], tissue.mod["protein"].copy()
    protein.obs_names = [f"p{i}" for i in range(protein.n_obs)]
    protein.obsm["spatial"] = protein.obsm["spatial"] + 0.5
    found = sn.run_joint(rna, protein, n_factors=K, radius=40, markers=MARKERS, output=tmp_path / "out")
    n = found.mdata.uns["alignment"]
    assert n["method"] == "mutual_nearest"
    assert n["n_matched"] + n["n_only_a"] == N
    assert len(found.shared_labels) == N + n["n_only_b"]
    own = found.shared_labels.loc[rna.obs_names, ["x", "y"]]
    np.testing.assert_array_equal(own, rna.obsm["spatial"])
    dropped = sn.run_joint(rna, protein, n_factors=K, radius=40, markers=MARKERS, unmatched="drop")
    assert dropped.H_shared.shape[1] == n["n_matched"]


@pytest.mark.usefixtures("no_figures")
def test_samples_are_kept_apart(tissue):
    rna, protein = tissue.mod["rna"].copy(), tissue.mod["protein"].copy()
    half = pd.Series(np.where(rna.obsm["spatial"][:, 0] < 0, "left", "right"), index=rna.obs_names)
    rna.obs["slide"] = half
    found = sn.run_joint(rna, protein, n_factors=K, radius=40, markers=MARKERS, library_key="slide")
    assert set(found.co_localization["library"]) == {"left", "right", "all"}
    with pytest.raises(KeyError, match="'core' is not in"):
        sn.run_joint(rna, protein, n_factors=3, markers=MARKERS, library_key="core")
    rna.obs["sample"] = half
    protein.obs_names = [f"p{i}" for i in range(protein.n_obs)]
    with pytest.raises(ValueError, match=r"transcriptome has 2 samples.*one at a time"):
        sn.run_joint(rna, protein, n_factors=3, markers=MARKERS)


def other_units(rna, protein):
    rna.uns.update(spatial_units="um", um_per_unit=1.0)
    protein.uns.update(spatial_units="pixel", um_per_unit=0.5)


def far_apart(rna, protein):
    protein.obsm["spatial"] = protein.obsm["spatial"] + 1e5


def negative(rna, protein):
    protein.X = protein.X - 1000


def all_zero(rna, protein):
    protein.X = protein.X * 0


def nothing(rna, protein):
    pass


@pytest.mark.parametrize(
    ("damage", "options", "says"),
    [
        (other_units, {}, r"units of um of 1 µm.*pixel of 0.5 µm.*one frame"),
        (far_apart, {}, r"proteome b: No observation of b lies within.*`align_radius`"),
        (negative, {}, r"negative intensities.*clip"),
        (all_zero, {}, "all zero"),
        (
            nothing,
            {"markers": {"a": ["NOSUCH"], "b": ["NEITHER"]}},
            r"Of 2 types, the markers of 0 are among.*var_names",
        ),
        (nothing, {"markers": pd.DataFrame({"B": ["CD19"], "T": ["CD3E"]})}, r"no column 'cell_type', 'marker'.*melt"),
        (nothing, {"align": "pool"}, "needs `align_radius`: the radius of a spot"),
        (nothing, {"align": "nearest"}, "`method` must be one of"),
        (nothing, {"n_niches": 1}, "`n_niches` must be at least 2"),
        (nothing, {"radius": 0}, "`radius` must be more than 0"),
    ],
)
def test_bad_input(tissue, tmp_path, damage, options, says):
    rna, protein = tissue.mod["rna"].copy(), tissue.mod["protein"].copy()
    protein.obs_names = [f"p{i}" for i in range(protein.n_obs)]
    damage(rna, protein)
    with pytest.raises(ValueError, match=says):
        sn.run_joint(rna, protein, **{"n_factors": 3, "markers": MARKERS, "output": tmp_path / "out", **options})
    assert list(tmp_path.iterdir()) == []


def ensembl(rna, protein):
    rna.var_names = [f"ENSG{i:011d}" for i in range(rna.n_vars)]
    return rna, protein


def logged(rna, protein):
    protein.uns["log1p"] = {"base": None}
    return rna, protein


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda rna, protein: (protein, rna), ["has 30 features.*the proteome 300.*exchanged"]),
        (ensembl, [r"among the genes \('ENSG00000000000'.*by proteins alone"]),
        (logged, ["log1p.*Pass the intensities"]),
        (lambda rna, protein: (rna, protein), []),
    ],
)
def test_what_is_hardly_meant_is_told(tissue, change, says):
    sets = _marker_sets.read(MARKERS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _joint_run._warn_of_doubtful(sets, *change(*(tissue.mod[m].copy() for m in ("rna", "protein"))))
    assert len(caught) == len(says)
    assert all(re.search(s, str(w.message)) for s, w in zip(says, caught, strict=True))


@pytest.mark.usefixtures("no_figures")
def test_one_type_only_loses_nothing(tissue, tmp_path):
    """Markers that nothing passes: every cell is Unknown, and the factors are there all the same."""
    markers = {"a": ["Gene001", "CD4"], "b": ["Gene002", "CD8A"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sn.tl._assign_types, "THRESHOLD", 2.0)
        with pytest.warns(SpanmfWarning, match=r"one type \('Unknown'\).*markers"):
            found = sn.run_joint(
                tissue.mod["rna"], tissue.mod["protein"], n_factors=3, markers=markers, output=tmp_path / "o"
            )
    assert found.cell_types == ["Unknown"]
    assert len(found.co_localization) == 0
    assert np.load(tmp_path / "o/H_shared.npy").shape == (3, N)
    assert pd.read_csv(tmp_path / "o/co_localization.csv").empty


def test_output_that_is_there(tissue, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        sn.run_joint(tissue.mod["rna"], tissue.mod["protein"], output=tmp_path)
    with pytest.raises(NotADirectoryError, match="is a file"):
        sn.run_joint(tissue.mod["rna"], tissue.mod["protein"], output=tmp_path / "mine.txt")


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_nothing_is_left_of_a_broken_run(files, tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(_joint_run, "_write", fail)
    monkeypatch.setattr(_joint_run, "_draw", lambda *_: [])
    status, _, errors = run("joint", "--tx", files / "rna.h5ad", "--prot", files / "protein.h5ad", "--n-factors", 3, "-o", tmp_path / "out")  # fmt: skip
    assert status == (130 if error is KeyboardInterrupt else 1)
    assert errors.splitlines()[-1].startswith("spanmf: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--align", "pool"), "--align pool needs --align-radius"),
        (("--align", "grid", "--align-radius", "5", "--warp", "9"), "--warp has no effect with --align grid"),
        (("--tx-platform", "nanopore"), "--tx-platform"),
        (("--n-niches", "1"), "at least 2"),
        (("--radius", "-1"), "more than 0"),
    ],
)
def test_wrong_usage(files, tmp_path, args, says, monkeypatch):
    monkeypatch.setattr(sn.io, "read", lambda *_: pytest.fail("something was read"))
    status, _, errors = run(
        "joint", "--tx", files / "rna.h5ad", "--prot", files / "protein.h5ad", "-o", tmp_path / "o", *args
    )
    assert status == 2
    assert says in errors
    assert list(tmp_path.iterdir()) == []


def test_error_is_in_shell_words(files, tmp_path):
    status, _, errors = run("joint", "--tx", files / "rna.h5ad", "--prot", files / "nowhere.h5ad", "-o", tmp_path / "o")
    assert status == 1
    assert "nowhere.h5ad" in errors.splitlines()[-1]
    markers = tmp_path / "m.csv"
    markers.write_text("type,gene\nB,CD19\n")
    given = ("--tx", files / "rna.h5ad", "--prot", files / "protein.h5ad", "--markers", markers, "-o", tmp_path / "o")
    status, _, errors = run("joint", *given)
    assert status == 1
    assert "no column 'cell_type', 'marker'" in errors.splitlines()[-1]


def test_options_are_those_of_the_function():
    parameters = inspect.signature(sn.run_joint).parameters
    for option in (o for group in _options.JOINT.values() for o in group):
        default = parameters[option.name].default
        assert option.default == default or (isinstance(option.default, str) and default is None), option.flag
        annotation = str(parameters[option.name].annotation)
        if option.choices is not None and "Literal" in annotation:
            assert all(repr(c) in annotation.replace('"', "'") for c in option.choices)


def test_help_teaches():
    status, text, _ = run("joint", "--help")
    assert status == 0
    assert all(
        w in text for w in ("examples:", "--tx-platform Visium", "markers:", "matching:", "exit status", "CODEX")
    )
    assert set(_joint_run.OUTPUTS) == FILES | {"alignment.png"}
    assert _cli_joint.describe.__doc__


@pytest.mark.real
@pytest.mark.usefixtures("no_figures")
def test_real_adjacent_sections(real_data, tmp_path):
    """Xenium cells pooled under Visium spots, in the frame that both files share; markers from the package."""
    visium = sn.io.read(real_data / "visium_breast_crop.h5ad")
    xenium = sn.io.read(real_data / "xenium_breast_crop.h5ad")
    for table in (visium, xenium):
        table.obs = table.obs[[]].copy()
    visium.obs_names, xenium.obs_names = [f"v{n}" for n in visium.obs_names], [f"x{n}" for n in xenium.obs_names]
    visium.var_names_make_unique()
    found = sn.run_joint(visium, xenium, n_factors=6, radius=20, align="pool", align_radius=5, unmatched="drop")
    assert found.H_shared.shape == (6, found.mdata.uns["alignment"]["n_matched"])
    assert "epithelial cell" in found.cell_types
