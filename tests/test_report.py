"""The report: what stands on the page, what it says of what is missing, and that a browser shows it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from base64 import b64decode
from html import escape, unescape
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from matplotlib import pyplot as plt
from PIL import Image
from support import changed, small_tissue, snapshot

import spanmf as sn
from spanmf import _format, _report
from spanmf._report import _figures, _html, _readings, _remarks, _sections, _sweep
from spanmf.metrics._rows import ROWS

K = 4
NASTY = "<img src=x onerror=alert(1)>&\"'"
HEADINGS = ["Warnings", "Domains", "Factors", "Numbers", "Graph of cells", "Convergence", "Sweep", "How it was made"]
VOID = {"meta", "link", "img", "br"}


@pytest.fixture(scope="module")
def result() -> ad.AnnData:
    """A run on a small tissue whose every name needs escaping."""
    adata = small_tissue(300, 40, K)
    adata.var_names = [f"gene{j}{NASTY}" for j in range(adata.n_vars)]
    adata.obs["sample"] = adata.obs["sample"].cat.rename_categories({"left": f"left {NASTY}", "right": "right"})
    adata.obs["known"] = adata.obs["domain"].cat.rename_categories({str(i): f"layer {i} {NASTY}" for i in range(K)})
    sn.gr.contact_neighbors(adata, library_key="sample")
    sn.tl.hsnmf(adata, K, n_domains=K)
    sn.tl.nmf(adata, K)
    return adata


@pytest.fixture(scope="module")
def numbers(result) -> pd.DataFrame:
    with pytest.warns(UserWarning, match="were smoothed over the graph that scores"):
        return sn.metrics.panel(result, ["hsnmf", "nmf"], library_key="sample", per_library=True, reference_key="known")


@pytest.fixture(scope="module")
def page(result, tmp_path_factory) -> str:
    """The whole page, with known labels; two samples (of which the graph knows)."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    sn.io.write_report(result, path, reference_key="known", title=f"Tissue {NASTY}", um_per_unit=1)
    return path.read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def no_figure_is_left():
    yield
    assert not plt.get_fignums()


@pytest.fixture
def no_pictures(monkeypatch):
    """Drawing takes most of the time of a small page."""

    def encode(drawn, alt, **_):
        plt.close(drawn.figure if hasattr(drawn, "transData") else drawn)
        return _html.Picture(b"", 1, 1, alt)

    monkeypatch.setattr(_figures, "encode", encode)


def written(adata: ad.AnnData, path: Path, **options) -> str:
    sn.io.write_report(adata, path, **options)
    return path.read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Text, tags and headings of a page; notes elements that are not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.wrong, self.tags, self.words, self.headings = [], [], [], [], []
        self.feed(page)
        self.wrong += self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def section(page: str, anchor: str) -> str:
    """A part of the page, as text."""
    return Reader(re.search(rf'<section id="{anchor}">.*?</section>', page, re.DOTALL)[0]).text


def pictures(page: str) -> list[Image.Image]:
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)"', page)
    return [Image.open(BytesIO(b64decode(data))) for data in found]


# --- the page -------------------------------------------------------------------------------------------------------


def test_page_is_well_formed_and_whole(page):
    reader = Reader(page)
    assert reader.wrong == []
    assert reader.headings == HEADINGS
    anchors = [a["href"][1:] for tag, a in reader.tags if tag == "a"]
    assert anchors == [a["id"] for tag, a in reader.tags if tag == "section"]


def test_nothing_is_loaded_and_nothing_runs(page):
    reader = Reader(page)
    assert "script" not in {tag for tag, _ in reader.tags}
    assert not [a for _, a in reader.tags if any(name.startswith("on") for name in a)]
    links = [a[name] for _, a in reader.tags for name in ("src", "href") if name in a]
    assert {link[:5] if link.startswith("data:") else link[0] for link in links} == {"data:", "#"}
    assert not re.search(r"https?:|@import|url\(", page)


def test_user_text_is_escaped(page):
    assert NASTY not in page
    assert escape(NASTY, quote=True) in page
    text = Reader(page).text
    for name in (f"left {NASTY}", f"layer 0 {NASTY}", f"Tissue {NASTY}"):
        assert name in text
    assert re.search(rf"gene\d+{re.escape(NASTY)}", text)


def test_pictures_are_there_and_small(page):
    """Domains, known labels, every factor, degrees, window, objective; as many pixels as are read."""
    found = pictures(page)
    assert len(found) == 2 + K + 3
    for picture, size in zip(found, re.findall(r'" width="(\d+)" height="(\d+)"', page), strict=True):
        picture.load()
        assert picture.mode == "P"
        assert len(np.unique(np.asarray(picture))) > 3, "an empty picture"
        width, height = map(int, size)
        assert 1.4 < picture.width / width < 1.6
        assert abs(picture.width / width - picture.height / height) < 0.05
        assert width <= 1100
        corner = picture.convert("RGB").getpixel((0, 0))
        assert corner == (255, 255, 255)
    assert len(page) < 3e6


def test_tables_say_what_the_object_holds(page, result):
    domains = section(page, "domains")
    sizes = result.obs["hsnmf"].value_counts()
    assert re.search(rf"domain cells share .* 0 {sizes.iloc[0]} {sizes.iloc[0] / 3:.0f} %", domains)
    shares = pd.crosstab(result.obs["sample"], result.obs["hsnmf"], normalize="index")
    assert _format.percent(shares.loc["right", "0"]) in domains
    factors = section(page, "factors")
    top = sn.tl.top_features(result, "hsnmf", 8)
    assert [g for g in top["feature"] if g not in factors] == []
    assert _format.percent(top["loading"].iloc[0]) in factors
    graph, summary = section(page, "graph"), sn.gr.graph_summary(result).loc["all"]
    assert f"all 300 {summary['n_edges']:,.0f} " in graph
    made = section(page, "parameters")
    assert f"n_components {K}" in made
    assert f"spanmf {sn.__version__}" in made
    assert "contact_radius" in made


def test_numbers_are_those_of_the_panel(page, numbers):
    text = section(page, "numbers")
    own = numbers[(numbers["key"] == "hsnmf") & (numbers["library"] == "all")].set_index("metric")["value"]
    for metric, value in own.items():
        reading = _readings.reading(metric)
        assert f"{reading.title} {reading.value(value)}" in text, metric
    assert "By sample" in text
    assert (
        _format.number(numbers.query("key == 'hsnmf' and library == 'right' and metric == 'chaos'")["value"].item())
        in text
    )


def test_smoothed_factors_are_not_praised(page):
    """Moran's I of smoothed factors stands beside what smoothing alone gives."""
    text = section(page, "numbers")
    assert "Circular for factors that were smoothed" in text
    assert re.search(r"at random places, treated alike, would reach 0\.\d+", text)


def test_same_table_same_bytes(result, page, tmp_path, numbers):
    """Whatever the user's styles are, and after a round trip through a file."""
    result.write_h5ad(tmp_path / "result.h5ad")
    stored = ad.read_h5ad(tmp_path / "result.h5ad")
    with plt.style.context("dark_background"):
        again = written(stored, tmp_path / "b.html", reference_key="known", title=f"Tissue {NASTY}", um_per_unit=1)
    assert again == page


@pytest.mark.usefixtures("no_pictures")
def test_table_is_not_touched(result, numbers, tmp_path):
    before = snapshot(result)
    sn.io.write_report(result, tmp_path / "a.html", metrics=numbers, key=["hsnmf", "nmf"])
    assert changed(before, snapshot(result)) == []


@pytest.mark.usefixtures("no_pictures")
def test_date_only_if_asked_for(page, result, numbers, tmp_path):
    assert not re.search(r"\b20\d\d\b", Reader(page).text)
    assert "Friday" in written(result, tmp_path / "a.html", metrics=numbers, date="Friday")


def test_second_key_is_compared(result, numbers, tmp_path):
    page = written(result, tmp_path / "a.html", key=["hsnmf", "nmf"], metrics=numbers)
    assert "For comparison: nmf" in section(page, "domains")
    assert len(pictures(page)) == 2 + K + 3 + 1  # both maps, and the panel


@pytest.mark.usefixtures("no_pictures")
def test_metrics_from_a_file_are_the_same(result, numbers, tmp_path):
    numbers.to_csv(tmp_path / "metrics.csv", index=False)
    given = (tmp_path / "metrics.csv", pd.read_csv(tmp_path / "metrics.csv"), numbers)
    texts = {_sections.numbers(_report.read_subject(result, ["hsnmf"], metrics=metrics)) for metrics in given}
    assert len(texts) == 1


@pytest.fixture
def runs() -> pd.DataFrame:
    """What a sweep returns."""
    rng = np.random.default_rng(0)
    grid = [(k, r) for k in (5, 10) for r in (0.2, 0.4, 0.8)]
    scores = {name: rng.random(len(grid)) for name in ("chaos", "morans_i", "silhouette", "davies_bouldin")}
    table = pd.DataFrame(grid, columns=["n_components", "resolution"]).assign(beta=0.6, alpha=0.1, rng=0)
    table["key"] = [f"k{k}_r{r}<b>" for k, r in grid]
    scores |= {"marker_coherence": rng.random(len(grid)), "enrichment": np.nan}
    return table.assign(n_clusters=range(3, 9), note="", **scores)


def test_sweep(result, numbers, runs, tmp_path):
    page = written(result, tmp_path / "a.html", metrics=numbers, sweep=runs)
    text = section(page, "sweep")
    assert "6 runs with other settings" in text
    assert all(key in text for key in runs["key"])
    assert " beta " not in text  # the same in all runs
    assert len(pictures(page)) == 1 + K + 3 + 1


@pytest.mark.usefixtures("no_pictures")
def test_sweep_from_a_file_or_from_uns(result, numbers, runs, tmp_path):
    runs.to_csv(tmp_path / "sweep.csv", index=False)
    stored = result.copy()
    stored.uns["sweep"] = {"table": runs.set_axis(runs.index.astype(str))}
    given = ({"sweep": runs}, {"sweep": tmp_path / "sweep.csv"}, {})
    texts = {_sweep.sweep(_report.read_subject(stored, ["hsnmf"], metrics=numbers, **options)) for options in given}
    assert len(texts) == 1
    assert escape("k10_r0.8<b>") in texts.pop()


@pytest.mark.usefixtures("no_pictures")
def test_sweep_of_few_numbers_is_listed(result, numbers, runs, tmp_path):
    few = runs[["key", "n_components", "silhouette"]]
    text = section(written(result, tmp_path / "a.html", metrics=numbers, sweep=few), "sweep")
    assert "Not shown. " in text
    assert all(key in text for key in few["key"])


# --- what is missing ------------------------------------------------------------------------------------------------


def without(adata: ad.AnnData, **slots) -> ad.AnnData:
    out = adata.copy()
    for slot, names in slots.items():
        for name in names:
            del getattr(out, slot)[name]
    return out


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("slots", "anchor", "says", "stays"),
    [
        ({"uns": ["hsnmf"]}, "convergence", r"Not shown\. .*holds no record of the fit", "domains"),
        ({"uns": ["hsnmf"]}, "parameters", "has no record of the run", "factors"),
        ({"uns": ["hsnmf"]}, "warnings", "no record of the run", "factors"),
        ({"obsm": ["spatial"]}, "domains", r"Not shown\. 'spatial' is not in", "graph"),
        ({"obsm": ["spatial"]}, "domains", "What the domains are", "factors"),
        ({"obsp": ["contact_connectivities"]}, "graph", r"Not shown\. No spatial graph", "domains"),
        ({"uns": ["contact_neighbors"]}, "graph", "does not record how the graph", "domains"),
        ({}, "sweep", r"Not shown\. There is no sweep: `sn\.tl\.sweep", "numbers"),
        ({"obsm": ["X_hsnmf"]}, "factors", r"Not shown\. 'X_hsnmf' is not in", "domains"),
        ({"obs": ["hsnmf"]}, "domains", r"Not shown\. 'hsnmf' is not in `adata\.obs`", "factors"),
    ],
)
def test_what_is_missing_is_said(result, numbers, tmp_path, slots, anchor, says, stays):
    page = written(without(result, **slots), tmp_path / "a.html", metrics=numbers)
    assert Reader(page).headings == HEADINGS
    assert re.search(says, section(page, anchor))
    assert "Not shown. " not in section(page, stays)


@pytest.mark.usefixtures("no_pictures")
def test_numbers_without_a_graph_or_places(result, tmp_path):
    bare = without(result, obsp=["contact_connectivities", "contact_distances"], obsm=["spatial"])
    text = section(written(bare, tmp_path / "a.html"), "numbers")
    assert "Not computed." in text
    assert re.search(r"Variance explained \d+ %", text)


@pytest.mark.usefixtures("no_pictures")
def test_nan_coordinates_do_not_stop_the_page(result, numbers, tmp_path):
    adata = result.copy()
    adata.obsm["spatial"][3] = np.nan
    page = written(adata, tmp_path / "a.html", metrics=numbers)
    assert "1 of 300 observations have NaN or infinite coordinates" in section(page, "domains")


@pytest.mark.usefixtures("no_pictures")
def test_view_of_one_sample(result, numbers, tmp_path):
    view = result[result.obs["sample"] == "right"]
    page = written(view, tmp_path / "a.html", library_key="sample")
    assert f"{view.n_obs} cells" in page
    assert "By sample" not in section(page, "numbers")


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("single", [True, False], ids=["one domain", "labels missing"])
def test_odd_labels(result, tmp_path, single):
    adata = result.copy()
    labels = pd.Series(["0"] * 300, index=adata.obs_names) if single else adata.obs["hsnmf"].astype(object)
    labels[:5] = "0" if single else None
    adata.obs["hsnmf"] = pd.Categorical(labels)
    page = written(adata, tmp_path / "a.html")
    expected = "There is one domain only" if single else "5 cells (1.7 %) have no label"
    assert expected in section(page, "warnings")
    assert ("no label" in section(page, "domains")) != single


# --- warnings -------------------------------------------------------------------------------------------------------


def planted(**faults) -> list[str]:
    """Remarks on a table of 200 cells in two samples with two even domains, changed as asked."""
    rng = np.random.default_rng(0)
    n, p = 200, 30
    adata = ad.AnnData(sp.csr_matrix((n, p), dtype=np.float32))
    adata.obs["sample"] = pd.Categorical(np.repeat(["a", "b"], n // 2))
    adata.obs["hsnmf"] = pd.Categorical(faults.get("labels", np.tile(["0", "1"], n // 2)))
    adata.obsm["spatial"] = rng.random((n, 2))
    adata.obsm["X_hsnmf"] = faults.get("W", np.ones((n, 3), dtype=np.float32))
    adata.varm["hsnmf_loadings"] = faults.get("H", np.ones((3, p), dtype=np.float32)).T
    ring = sp.diags_array([np.ones(n - 1)] * 2, offsets=[-1, 1]).tolil()
    ring[99, 100] = ring[100, 99] = 0
    if "graph" in faults:
        faults["graph"](ring)
    adata.obsp["contact_connectivities"] = sp.csr_matrix(ring.tocsr())
    adata.uns["hsnmf"] = {"params": {}, "converged": faults.get("converged", True), "n_iter": 7}
    return _remarks.remarks(_report.Subject(adata, "hsnmf", library_key="sample"))


def isolate(graph):
    graph[:10] = 0
    graph[:, :10] = 0


def cross(graph):
    graph[0, 150] = graph[150, 0] = 1


def loadings(k, values):
    H = np.ones((3, 30), dtype=np.float32)
    H[k] = values
    return H


def use(rows, k, value=0.0):
    W = np.ones((200, 3), dtype=np.float32)
    W[rows, k] = value
    return W


def test_sound_table_has_no_remark():
    assert planted() == []


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ({"graph": isolate}, r"1[01] cells \(5\.\d %\) have no neighbour"),
        ({"graph": cross}, "1 pair of neighbours lie in different samples"),
        ({"converged": False}, "had not come to rest after 7 passes"),
        ({"labels": np.repeat(["0", "1"], 100)}, r"Domain 0 lies almost wholly \(100 %\) in sample a"),
        ({"labels": np.repeat(["0", "1"], 100)}, "Samples a, b are almost wholly one domain"),
        ({"labels": np.array(["0"] * 100 + ["1"] * 99 + ["2"])}, r"Domain 2 holds at most 0\.5 % of the cells:"),
        ({"W": use(slice(0, 100), 1)}, "Factor 1 is used almost wholly in sample b"),
        ({"W": use(slice(None), 2)}, "Factor 2 is empty"),
        ({"W": use(slice(0, 10), [0, 1, 2])}, r"10 cells \(5\.0 %\) use no factor"),
        ({"H": loadings(0, np.eye(30)[4] * 100 + 1)}, r"Factor 0 is little more than one gene: 4 has 78 %"),
    ],
)
def test_planted_faults_are_found(faults, says):
    found = planted(**faults)
    assert any(re.search(says, remark) for remark in found), found


@pytest.mark.usefixtures("no_pictures")
def test_warnings_are_counted_in_the_summary(result, numbers, tmp_path):
    adata = result.copy()
    adata.uns["hsnmf"] = adata.uns["hsnmf"] | {"converged": False}
    page = written(adata, tmp_path / "a.html", metrics=numbers)
    n = len(re.findall("<li>", re.search(r'<ul class="warnings">.*?</ul>', page)[0]))
    assert re.search(rf"\b{n} things? to look at first", page)


# --- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", sorted({m for row in ROWS for m in row.metrics}))
def test_every_metric_has_its_reading(metric):
    reading = _readings.READINGS[metric]
    assert reading.ends
    assert reading.moved_by.endswith(".")
    for value in (-1.0, 0.0, 0.3, 1.0, 12345.6):
        for values in ({}, {"edge_agreement_expected": 0.2, "morans_i_null": 0.1}):
            text = reading.text(value, values)
            assert text.endswith(".")
            assert "{" not in text
            assert "nan" not in text
    assert reading.text(np.nan, {}) == "Not computed."


def test_unknown_metric_is_shown_plainly():
    reading = _readings.reading("new_metric")
    assert (reading.title, reading.value(0.5), reading.text(0.5, {})) == ("new metric", "0.500", "0.500.")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (3, "3"), (12345, "12,345"), (1234.5, "1,234"), (0.5, "0.500"), (0.01234, "0.0123"), (2e-5, "2.0e−5"),
        (-0.25, "−0.250"), (-2, "−2"), (np.nan, "–"), (np.inf, "∞"), (-np.inf, "−∞"), (99.96, "99.96"), (3e12, "3.00e12"),
    ],
)  # fmt: skip
def test_numbers_are_printed(value, text):
    assert _format.number(value) == {"99.96": "100.0"}.get(text, text)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.5, "50 %"), (0.034, "3.4 %"), (0.0996, "10 %"), (1, "100 %"), (2e-4, "< 0.1 %"), (-0.02, "−2.0 %")],
)
def test_shares_are_printed(share, text):
    assert _format.percent(share) == text


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"key": "leiden"}, KeyError, "'leiden' is not in `adata.obs`.*'X_leiden'.*sn.tl.hsnmf"),
        ({"key": []}, ValueError, "`key` must be among"),
        ({"library_key": "slide"}, KeyError, "'slide' is not in `adata.obs`"),
        ({"reference_key": "truth"}, KeyError, "'truth' is not in `adata.obs`"),
        ({"connectivity_key": "knn"}, KeyError, "No graph 'knn'"),
        ({"metrics": pd.DataFrame({"metric": ["chaos"], "value": [1.0]})}, ValueError, "`metrics` .*lacks .*'key', 'better'"),
        ({"sweep": pd.DataFrame({"key": [], "n_components": []})}, ValueError, "`sweep` .* has no rows"),
        ({"metrics": "nowhere.csv"}, FileNotFoundError, "nowhere.csv"),
    ],
)  # fmt: skip
def test_refused_before_anything_is_written(result, tmp_path, options, error, message):
    (tmp_path / "report.html").write_text("before")
    with pytest.raises(error, match=message):
        sn.io.write_report(result, tmp_path / "report.html", **options)
    assert (tmp_path / "report.html").read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_place_that_cannot_be_written(result, numbers, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*no.*Make it first"):
        sn.io.write_report(result, tmp_path / "no" / "report.html", metrics=numbers)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        sn.io.write_report(result, tmp_path, metrics=numbers)


# --- in a browser ---------------------------------------------------------------------------------------------------

PROBE = """
<script>
window.addEventListener("error", e => errors.push(String(e.message || e.target.src || e)), true);
const errors = [];
window.addEventListener("load", () => {
  const root = document.documentElement;
  const found = {
    images: [...document.images].map(i => [i.naturalWidth, i.getBoundingClientRect().width]),
    headings: [...document.querySelectorAll("h2")].map(h => h.textContent),
    overflow: root.scrollWidth - root.clientWidth,
    cut: [...document.querySelectorAll(".scroll")].filter(e => e.scrollWidth > e.clientWidth + 1).length,
    resources: performance.getEntriesByType("resource").map(r => r.name).filter(n => !n.startsWith("data:")),
    errors: errors,
  };
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
});
</script>
"""
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--enable-logging=stderr",
)  # fmt: skip


@pytest.fixture(scope="module")
def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is installed")
    return found


def browse(chromium: str, folder: Path, page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [chromium, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.mark.parametrize("width", [1280, 1440])
def test_browser_shows_all(chromium, page, tmp_path, width):
    """At the widths of a laptop: all headings and images, nothing wider than the page, no error, no request."""
    (tmp_path / "probe.html").write_text(page.replace("<head>", "<head>" + PROBE, 1), encoding="utf-8")
    done = browse(chromium, tmp_path, tmp_path / "probe.html", f"--window-size={width},900", "--dump-dom")
    found = json.loads(unescape(re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)[1]))
    assert found["headings"] == HEADINGS
    assert len(found["images"]) == len(pictures(page))
    assert all(natural > 0 and shown > 100 for natural, shown in found["images"])
    assert (found["overflow"], found["cut"], found["resources"], found["errors"]) == (0, 0, [], [])
    assert "CONSOLE" not in done.stderr


def test_browser_prints(chromium, page, tmp_path):
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    browse(chromium, tmp_path, tmp_path / "report.html", f"--print-to-pdf={tmp_path / 'report.pdf'}")
    pdf = (tmp_path / "report.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 20
