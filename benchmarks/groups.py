"""The one table of benchmark groups: what each measures, at which sizes, and what must be equal before times compare.

Nothing heavy is imported here. README.md says how a group is added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Sizes = tuple[int | str, ...]
Row = dict[str, Any]


@dataclass(frozen=True)
class Quality:
    """A number that every row has, and how far ours may be on the wrong side of the best peer's (relative)."""

    field: str
    better: Literal["lower", "higher", "equal"]
    within: float
    against: tuple[str, ...] = ()  # the peers that count; none named: all


@dataclass(frozen=True)
class Group:
    """Measurements of one kind; ``module`` holds ``MEASUREMENTS[name] = {who: function}``, the peers before ours."""

    title: str
    module: str
    quality: Quality | str  # or why there is nothing to compare
    quick: tuple[Sizes, ...]  # the first size is the number of observations; none where another group does the same
    full: tuple[Sizes, ...]
    data: tuple[str, ...] = ()  # real tables without which it is left out
    seeds: bool = False  # the last size is a seed: tables give the median over seeds
    threads: int | None = None  # where a group measures threads itself
    by_wall: bool = False  # the ratio is that of wall times
    cap_s: float = (
        3600.0  # CPU seconds; a measurement that takes longer is ended, and larger ones of the same kind are not begun
    )
    quick_who: tuple[str, ...] = ()  # in the quick form only these
    page: str = "benchmarks.md"  # where its results are told
    told: tuple[str, ...] = ()  # further fields of the rows, whose median over seeds stands in the table
    aim: str = ""  # what is asked of ours beside the quality, in words


CURVE = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)


def curve(title: str, quality: Quality, quick: tuple[Sizes, ...] = ()) -> Group:
    """One stage of the scaling figure."""
    return Group(
        f"Scaling: {title}",
        "scaling",
        quality,
        quick=quick,
        full=tuple((n,) for n in CURVE),
        cap_s=600.0,
    )


GROUPS: dict[str, Group] = {
    "nmf": Group(
        "Factorisation, rank 10, against scikit-learn's coordinate descent run to its end",
        "foundation",
        Quality("objective", "lower", 1e-4),
        quick=((20_000, "easy", 0), (20_000, "hard", 0)),
        full=(
            *((100_000, kind, seed) for kind in ("easy", "hard") for seed in range(5)),
            *((500_000, "hard", seed) for seed in range(3)),
        ),
        seeds=True,
    ),
    "graph": Group(
        "Merged 20/80 µm graph; dense: as generated, 90 neighbours a cell; tumour: 32, as in the Xenium breast tumour",
        "foundation",
        Quality("nnz", "equal", 0.0),
        quick=((30_000, "dense"),),
        full=((100_000, "dense"), (1_000_000, "dense"), (1_000_000, "tumour")),
    ),
    "smoothing": Group(
        "One smoothing step of 10 factors",
        "foundation",
        Quality("total", "equal", 1e-6),
        quick=((30_000,),),
        full=((100_000,), (1_000_000,)),
    ),
    "knn": Group(
        "Exact 15 nearest neighbours on 10 factors",
        "foundation",
        Quality("total", "equal", 1e-5),
        quick=((20_000,),),
        full=((100_000,),),
    ),
    "leiden": Group(
        "Leiden on the hybrid graph, building the library's graph included; dense and tumour as above",
        "foundation",
        Quality("modularity", "higher", 0.01),
        quick=((10_000, "dense"),),
        full=((100_000, "dense"), (1_000_000, "tumour")),
    ),
    "pipeline": Group(
        "Graph, factors, domains and metrics, against the published form",
        "foundation",
        Quality("ari", "higher", 0.02),
        quick=((1_500,),),
        full=((20_000,), (100_000,)),
    ),
    "threads": Group(
        "Two threads against one: cells, what is done",
        "threads",
        "one thread and two give the same to the bit (tests/test_threads.py)",
        quick=((30_000, "pass"),),
        full=tuple((n, what) for n in (100_000, 1_000_000) for what in ("pass", "smoothing", "graph")),
        threads=2,
        aim="1.7 times as fast on the pass over a million cells",
    ),
    "sweep": Group(
        "Sweep of ranks × resolutions with all metrics, against the same runs one by one",
        "evaluation",
        Quality("ari", "equal", 0.02),
        quick=((2_000, 2, 2),),
        full=((20_000, 5, 5),),
    ),
    "sweep_alone": Group(
        "Sweep of ranks × resolutions with all metrics, by itself",
        "evaluation",
        "no peer at this size",
        quick=(),
        full=((100_000, 5, 5),),
    ),
    "consensus": Group(
        "Consensus NMF of the breast tumour's 34,451 cells: ranks 5, 8, 10, 12, 15, restarts of each (ours, the peer's)",
        "consensus",
        Quality("objective", "lower", 0.01),
        quick=((1_500, 6, 6),),
        full=((34_451, 20, 20),),
        data=("xenium_breast_tiles.h5ad",),
    ),
    "rank_selection": Group(
        "Planted ranks found: cells, kind of data, planted rank, first seed, loss, seeds",
        "rank_selection",
        "scored against the planted rank, no peer",
        quick=((1_000, "factors", 5, 100, "frobenius", 1),),
        full=tuple(
            (10_000, kind, k, 100, "frobenius", 10) for kind in ("tissue", "factors") for k in (5, 10, 15)
        ),  # seeds below 100 chose the defaults
    ),
    "n_domains": Group(
        "Number of domains by rule, with the agreement (ARI) that it reaches: observations, tissue, rank, seed",
        "n_domains",
        "scored against known domains, no peer",
        quick=((700, "spots_11", 10, 7),),
        full=tuple(
            (n, case, rank, 7)
            for rank in (10, 15)
            for n, cases in {
                428: ("pdac", "pdac_hvg"),
                613: ("her2", "her2_hvg"),
                700: ("spots_11", "spots_12", "spots_13", "spots_14"),
                1_549: ("starmap",),
                4_000: ("cells_11", "cells_12", "cells_13", "cells_14"),
            }.items()
            for case in cases
        ),
        page="domains_evidence.md",
    ),
    "domains": Group(
        "Which defaults: variants of the domains by ARI: observations, tissue, ranks, seeds",
        "domains",
        "scored against known domains, no peer",
        quick=((700, "spots_1", 1, 1),),
        full=(
            *((n, f"{case}{form}", 4, 5) for n, case in ((428, "pdac"), (613, "her2")) for form in ("", "_hvg")),
            (1_549, "starmap", 4, 5),
            *((n, f"{kind}_{s}", 4, 5) for n, kind in ((700, "spots"), (4_000, "cells")) for s in range(1, 6)),
        ),
        page="domains_evidence.md",
    ),
    "steps": Group(
        "How many smoothing steps on spots, by ARI: observations, section, seeds",
        "steps",
        "scored against known domains, no peer",
        quick=((404, "bins_31", 1),),
        full=(
            *((n, f"{case}{form}", 5) for n, case in ((428, "pdac"), (613, "her2")) for form in ("", "_hvg")),
            *((700, f"spots_{s}", 5) for s in range(1, 6)),
            (195, "circle", 5),
            (256, "square", 5),
            *((n, f"bins_{s}", 5) for s, n in ((1, 304), (2, 301), (3, 350))),
            *((n, f"spots_{s}", 2) for s, n in ((31, 500), (32, 1_500), (33, 900), (34, 2_000))),
            *((n, f"bins_{s}", 2) for s, n in ((31, 404), (32, 340), (33, 575))),
            (325, "starmap_square", 2),
            (334, "starmap_hexagonal", 2),
            (709, "breast", 2),
        ),
        page="domains_evidence.md",
    ),
    "colocalization": Group(
        "Co-localisation of 20 types on the contact graph, against 1,000 permutations",
        "colocalization",
        Quality("correlation", "equal", 1e-3),
        quick=((10_000,),),
        full=((100_000,),),
    ),
    "colocalization_alone": Group(
        "The same, exact only", "colocalization", "no peer at this size", quick=(), full=((1_000_000,),)
    ),
    "real_tissues": Group(
        "Domains on real tissues, by ours and by what a user would try",
        "real_tissues",
        "all scores stand in docs/evaluation.md",
        quick=((428, "pdac_a_st"),),
        full=((428, "pdac_a_st"), (613, "her2st_H1"), (1_549, "starmap_v1_1020"), (34_451, "xenium_breast_tiles")),
        quick_who=("spanmf", "PCA, Leiden"),
        page="evaluation.md",
    ),
    "enrichment_real": Group(
        "Enrichment of domains in lists of cell markers, on real tissues",
        "enrichment_real",
        "both forms of one score, no peer",
        quick=(),
        full=((1_549, "starmap_v1_1020"), (34_451, "xenium_breast_tiles")),
        page="evaluation.md",
    ),
    "deconvolution": Group(
        "Cell types in spots: error of the fractions (kind of section, seed)",
        "deconvolution",
        Quality("error", "lower", 0.03),
        quick=((428, "mixes", 2000),),
        full=(
            *(
                (428, kind, seed)
                for kind, n_seeds in (("mixes", 10), ("platform", 10), ("starmap", 10), ("paper", 5))
                for seed in range(2000, 2000 + n_seeds)  # those below 1000 chose the defaults
            ),
            (50_000, "speed", 2000),
        ),
        data=("pdac_a_st.h5ad", "pdac_a_sc_ref.h5ad", "starmap_v1_1020.h5ad"),
        seeds=True,
        quick_who=("NNLS", "FlashDeconv", "spanmf"),
    ),
    "deconvolution_alone": Group(
        "Cell types in many spots, about 640 genes seen in each, 2,000 genes, 20 types, with the graph: memory",
        "deconvolution",
        "no peer at this size",
        quick=((20_000, 2000),),
        full=((200_000, 2000), (1_000_000, 2000)),
    ),
    "deconvolution_deep": Group(
        "Cell types in spots: error beside slow peers, on a patch of the section (spots, kind of section, seed)",
        "deconvolution_deep",
        Quality("error", "lower", 0.03),
        quick=((48, "starmap", 4000),),
        full=tuple((96, kind, 4000) for kind in ("starmap", "mixes", "platform", "paper")),
        data=("pdac_a_st.h5ad", "pdac_a_sc_ref.h5ad", "starmap_v1_1020.h5ad"),
        seeds=True,
        quick_who=("NNLS", "spanmf"),
    ),
    "deconvolution_intervals": Group(
        "Cell types in spots: what 90 % intervals cover (kind of section, seed)",
        "deconvolution",
        "they are to cover 0.85 to 0.95",
        quick=((428, "mixes", 3000),),
        full=(
            *((428, "paper", seed) for seed in range(5000, 5006)),
            *((428, kind, seed) for kind in ("mixes", "platform", "starmap") for seed in range(3000, 3010)),
        ),
        data=("pdac_a_st.h5ad", "pdac_a_sc_ref.h5ad", "starmap_v1_1020.h5ad"),
        seeds=True,
    ),
    "stl_paper": Group(
        "The tests of the STL-NMF paper, rebuilt",
        "stl_paper",
        "all errors stand in docs/deconvolution_published.md",
        quick=((256, "square2x2"),),
        full=(
            (256, "square2x2"), (195, "circle2x2"), (428, "clean3"), (428, "noisy3"), (428, "clean5"),
            (428, "noisy5"), (428, "real"),
        ),
        data=("pdac_a_st.h5ad", "stlnmf_synth_square2x2.h5ad"),
        quick_who=("NNLS", "paper, untrained", "spanmf"),
        page="deconvolution_published.md",
    ),
    "deconvolution_real": Group(
        "Cell types in spots of real tissues: section, weight of the reference",
        "deconvolution_real",
        "no truth, or one of an adjacent section",
        quick=((612, "her2st", "inf"),),
        full=((1_000, "lymph", 2), *((n, s, w) for n, s in ((612, "her2st"), (526, "breast")) for w in (2, "inf"))),
        data=("visium_lymph_rctd.h5ad", "her2st_H1.h5ad", "visium_breast_crop.h5ad", "xenium_breast_crop.h5ad"),
    ),
    "joint_seed": Group(
        "Joint factors: SpatialMultiOmics' own benchmark (form, seeds; seconds of one run)",
        "joint",
        Quality("mean_accuracy", "higher", 0.0),
        quick=((200, "text", 2),),
        full=((200, "text", 20), (200, "code", 20)),
    ),
    "joint_types": Group(
        "Joint factors: ten types of a generated tissue (cells, per cent without protein, seed)",
        "joint",
        Quality("ari", "higher", 0.0, against=("published form", "RNA alone", "protein alone", "stacked", "scikit-learn NMF", "MOFA+")),
        quick=((1_000, 30, 100),),
        full=tuple((20_000, percent, seed) for seed in range(200, 205) for percent in (30, 0)),  # those below 100 chose the defaults
        seeds=True,
        told=("accuracy",),
        quick_who=("scikit-learn NMF", "spanmf"),
    ),
    "joint_displaced": Group(
        "Joint factors: the second section displaced (cells, µm, seed)",
        "joint_displaced",
        Quality("ari", "higher", 0.0),
        quick=((1_000, 5, 100),),
        full=tuple((20_000, um, seed) for um in (0, 2, 5, 10) for seed in (200, 201, 202)),
        seeds=True,
        told=("accuracy",),
    ),
    "joint_speed": Group(
        "Joint factors: cells × genes and 40 proteins, rank 12",
        "joint",
        Quality("objective", "lower", 1e-4),
        quick=((3_000, 100),),
        full=((100_000, 400),),
        quick_who=("scikit-learn NMF", "spanmf"),
    ),
    "joint_citeseq": Group(
        "Joint factors: CD4 and CD8 T cells of a CITE-seq table, without the proteins that gate them (seeds)",
        "joint",
        "an AUC; RNA alone stands beside it",
        quick=((200, 1),),
        full=((200, 10),),
        data=("citeseq_pbmc_10k_protein_v3.h5ad",),
    ),
    "joint_sections": Group(
        "Joint factors of adjacent sections (Xenium under Visium): agreement on genes that were held out, by split",
        "joint_sections",
        "beside random pairing and Xenium's own values",
        quick=((526, 0),),
        full=tuple((526, seed) for seed in range(5)),
        data=("visium_breast_crop.h5ad", "xenium_breast_crop.h5ad"),
    ),
    "gpu_pass": Group(
        "A pass over X on a GPU (cells, genes; rank 10), and how near it comes to reading X once",
        "gpu",
        "held against the floor of the memory",
        quick=((5_000, 100),),
        full=((100_000, 300), (1_000_000, 300), (1_000_000, 5_000)),
    ),
    "gpu_nmf": Group(
        "Factorisation on a GPU (cells, genes; rank 10), X moved there included",
        "gpu",
        Quality("objective", "lower", 1e-4),
        quick=((5_000, 100),),
        full=((100_000, 300), (1_000_000, 300), (1_000_000, 5_000)),
    ),
    "out_of_core": Group(
        "X in blocks on disk (zarr, dask) against X in memory",
        "large",
        Quality("objective", "equal", 1e-6),
        quick=((20_000,),),
        full=((500_000,),),
        quick_who=("X in memory", "spanmf"),
        aim="blocks in memory cost at most 15 % more than X in memory",
    ),
    "workers": Group(
        "Two workers of a dask cluster (spanmf) against one",
        "large",
        Quality("objective", "equal", 1e-6),
        quick=(),
        full=((1_000_000,), (3_000_000,)),
        threads=2,  # of the client, which makes the start; a worker has one
        by_wall=True,
        aim="1.6 times as fast",
    ),
    "large_hsnmf": Group(
        "Domains from landmarks on a graph that is described, not stored: cells, landmarks",
        "large",
        "agreement with Leiden on all cells: docs/large_data.md",
        quick=((20_000, 2_000),),
        full=((1_000_000, 50_000), (5_000_000, 50_000)),
    ),
    "scaling_nmf": curve("factorisation", Quality("objective", "lower", 1e-4), quick=((1_000,),)),
    "scaling_graph": curve("merged 20/80 µm graph", Quality("nnz", "equal", 0.0)),
    "scaling_smoothing": curve("one smoothing step", Quality("total", "equal", 1e-6)),
    "scaling_knn": curve("15 nearest neighbours", Quality("total", "equal", 1e-5)),
    "scaling_leiden": curve("Leiden", Quality("modularity", "higher", 0.01)),
    "scaling_pipeline": curve("whole pipeline", Quality("ari", "higher", 0.02)),
}  # fmt: skip


def compared(group: Group) -> str:
    """In words: what is asked of the results, and of the times where that is said."""
    q = group.quality
    if isinstance(q, str):
        text = f"{q[0].upper()}{q[1:]}."
    elif q.better == "equal":
        text = f"Quality: {q.field}, which must {f'agree to {q.within:g}' if q.within else 'be the same'}."
    else:
        text = f"Quality: {q.field}, the {q.better} the better; ours may be {q.within:g} behind the best peer's."
    return f"{text} Aim: {group.aim}." if group.aim else text


def is_ours(row: Row) -> bool:
    """Rows of ours are named ``spanmf`` or ``spanmf, variant``."""
    return str(row["who"]).startswith("spanmf")


def judge(rows: list[Row], quality: Quality | str) -> list[Row]:
    """Rows of one task, each with ``same`` (True, False or None: not compared) and ``judged`` in words.

    Ours are held against the best peer. A result that is better than the peer's is no reproach.
    """
    if isinstance(quality, str):
        return [row | {"same": None, "judged": ""} for row in rows]
    values = {r["who"]: r[quality.field] for r in rows if isinstance(r.get(quality.field), int | float)}
    peers = [w for w in values if not w.startswith("spanmf") and (not quality.against or w in quality.against)]
    best = (max if quality.better == "higher" else min)((values[w] for w in peers), default=None)
    return [row | _verdict(values.get(row["who"]), best, quality) if is_ours(row) else row for row in rows]


def share(off: float) -> str:
    """A relative difference: in per cent, or as a power of ten where it is small."""
    return f"{100 * off:+.2g} %" if abs(off) >= 1e-3 else f"{off:+.0e}"


def _verdict(value: float | None, best: float | None, quality: Quality) -> Row:
    if value is None or best is None:
        return {
            "same": None,
            "judged": "not compared: " + ("no peer" if best is None else f"no {quality.field}"),
        }
    off = (value - best) / (abs(best) or 1.0)
    worse = {"lower": off, "higher": -off, "equal": abs(off)}[quality.better]
    same = bool(worse <= quality.within)  # NaN is not the same
    word = "WORSE" if not same else "same" if worse >= -quality.within else "better"
    return {
        "same": same,
        "off": off,
        "judged": f"{word}, {share(off)}" if off else word,
    }
