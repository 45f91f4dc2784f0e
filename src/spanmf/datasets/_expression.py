"""Gene programmes, their activity in cells, and counts drawn from them block by block."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from .. import _checks
from ._anatomy import CELL_TYPES, DOMAINS

BLOCK = 2**19  # entries of a dense block while counts are drawn

MARKERS = {
    "epithelial": "EPCAM KRT8 KRT20 PIGR MUC2 CDH1 ELF3 KLF5 FABP1 TFF3",
    "tumour": "CEACAM6 KRT19 EPCAM KRT8 ERBB2 MYC CCND1 SOX9 TACSTD2 CLDN4",
    "fibroblast": "COL1A1 DCN LUM PDGFRA COL3A1 FBLN1 CCDC80 DPT CXCL12 C3",
    "CD4 T": "CD3E CD4 IL7R TRAC CD3D CCR7 TCF7 LTB CD40LG ICOS",
    "B": "MS4A1 CD79A CD19 BANK1 CD79B CD22 PAX5 CXCR5 LTB FCRL1",
    "macrophage": "CD68 CD163 C1QA CD14 C1QC AIF1 MRC1 LYZ APOE MSR1",
    "endothelial": "PECAM1 VWF CDH5 KDR CLDN5 EGFL7 CLEC14A RAMP2 FLT1 ESAM",
    "smooth muscle": "MYH11 DES ACTA2 CNN1 TAGLN MYLK ACTG2 SYNPO2 LMOD1 PLN",
    "CD8 T": "CD8A CD3E CD8B GZMK TRAC CCL5 CD3D NKG7 GZMA CXCR6",
    "plasma": "MZB1 JCHAIN TNFRSF17 DERL3 XBP1 SDC1 CD79A PRDM1 IGHG1 IGKC",
    "CAF": "FAP POSTN COL11A1 COL1A1 MMP11 COL3A1 LRRC15 ACTA2 CTHRC1 INHBA",
    "dendritic": "CD1C FCER1A CLEC9A LAMP3 CD83 HLA-DRA ITGAX CCR7 FLT3 XCR1",
    "pericyte": "RGS5 PDGFRB NOTCH3 MCAM CSPG4 ACTA2 HIGD1B KCNJ8 ABCC9 COX4I2",
    "mast": "TPSAB1 CPA3 KIT HDC MS4A2 TPSB2 GATA2 HPGDS SLC18A2 IL1RL1",
    "adipocyte": "ADIPOQ PLIN1 FABP4 LPL LEP CD36 CIDEC PPARG PLIN4 GPD1",
    "NK": "KLRD1 GNLY NCAM1 PRF1 KLRF1 NKG7 GZMB XCL1 FCGR3A KLRC1",
    "proliferation": "MKI67 TOP2A CENPF PCNA TYMS BIRC5 CCNB1 UBE2C",
    "hypoxia": "CA9 VEGFA NDRG1 SLC2A1 ADM PGK1 ANKRD37 BNIP3",
    "interferon": "ISG15 IFI6 MX1 IFIT1 CXCL10 STAT1 IFI44L OAS1",
    "stress": "FOS JUN EGR1 HSPA1A ATF3 DUSP1 IER2 DNAJB1",
}
# States run on top of a cell's type: mean share of its transcripts, in all domains and in named ones.
STATES = {
    "proliferation": (0.01, {"follicle": 0.08, "tumour": 0.07}),
    "hypoxia": (0.01, {"tumour": 0.04, "necrosis": 0.2, "margin": 0.03}),
    "interferon": (0.015, {"margin": 0.1, "T zone": 0.03}),
    "stress": (0.03, {}),
}
AMBIENT = "ambient"
AMBIENT_SHARE = 0.06
SPILL_SHARE = 0.15  # transcripts of a neighbour that segmentation gave to the cell
SIZE = {
    "epithelial": 1.3,
    "tumour": 1.5,
    "CD4 T": 0.7,
    "CD8 T": 0.7,
    "B": 0.7,
    "NK": 0.7,
    "macrophage": 1.2,
    "mast": 0.8,
}


@dataclass(frozen=True)
class Programmes:
    """Non-negative gene programmes: one a cell type, then the states, then the ambient background."""

    names: tuple[str, ...]
    genes: list[str]
    H: np.ndarray  # programmes × genes, float32, rows of sum 1

    @classmethod
    def draw(cls, rng: np.random.Generator, n_types: int, n_genes: int) -> Programmes:
        """Marker genes first (as many as there is room for), filled up with genes of no name."""
        active = (*CELL_TYPES[:n_types], *STATES)
        genes = gene_names(active, n_genes)
        marked = np.array([[g in MARKERS[a].split() for g in genes] for a in active])
        base = rng.lognormal(0, 1.5, n_genes) * np.where(marked.any(axis=0), 0.3, 1.0)
        base /= base.sum()
        share = np.where([a in STATES for a in active], 0.85, 0.3 * min(1.0, np.sqrt(300 / n_genes)))[:, None]
        shift = rng.lognormal(0, 0.25, marked.shape) * np.where(
            rng.random(marked.shape) < 0.12, rng.lognormal(1.2, 0.4, marked.shape), 1.0
        )
        markers = marked * rng.lognormal(0, 0.6, marked.shape)
        H = (1 - share) * _row_shares(base * shift) + share * _row_shares(markers)
        return cls((*active, AMBIENT), genes, np.vstack([H, base]).astype(np.float32))


def check_plan(n_domains: int, n_types: int, n_genes: int, depth: float) -> None:
    """Domains and types that there are, at least as many genes as programmes, ten counts a row."""
    _checks.check_range("n_domains", n_domains, 2, len(DOMAINS), integer=True)
    _checks.check_range("n_types", n_types, 2, len(CELL_TYPES), integer=True)
    _checks.check_range("n_genes", n_genes, n_types + len(STATES) + 1, integer=True)
    _checks.check_range("depth", depth, 10)


def _row_shares(values: np.ndarray) -> np.ndarray:
    return values / values.sum(axis=1, keepdims=True)


def gene_names(active: tuple[str, ...], n_genes: int) -> list[str]:
    """Sorted names: every programme's first marker, their second ones and so on, filled up by ``Gene001``, ``Gene002``."""
    lists = [MARKERS[a].split() for a in active]
    longest = max(len(x) for x in lists)
    named = list(dict.fromkeys(x[i] for i in range(longest) for x in lists if i < len(x)))[:n_genes]
    width = max(3, len(str(n_genes)))
    return sorted(named + [f"Gene{i + 1:0{width}d}" for i in range(n_genes - len(named))])


def draw_types(rng: np.random.Generator, domain: np.ndarray, mixture: np.ndarray) -> np.ndarray:
    """A type for every cell, from its domain's row of ``mixture`` (domains × types)."""
    limits = np.cumsum(mixture, axis=1)
    limits[:, -1] = 1
    u = rng.random(len(domain))
    types = np.empty(len(domain), dtype=np.int8)
    for d in range(len(mixture)):
        here = domain == d
        types[here] = np.searchsorted(limits[d], u[here], side="right")
    return types


def shift_mixture(rng: np.random.Generator, mixture: np.ndarray, sd: float = 0.2) -> np.ndarray:
    """The mixtures of one sample: every share varies by a lognormal factor."""
    return _row_shares(mixture * rng.lognormal(0, sd, mixture.shape))


def draw_usage(
    rng: np.random.Generator, types: np.ndarray, domain: np.ndarray, mixture: np.ndarray, domain_names: list[str]
) -> np.ndarray:
    """Shares of the programmes in every cell (cells × programmes, float32, rows of sum 1).

    Most is the cell's type; the rest is spill from another cell of the same surroundings, states and background.
    """
    n, n_types = len(types), mixture.shape[1]
    usage = np.zeros((n, n_types + len(STATES) + 1), dtype=np.float32)
    usage[:, -1] = rng.beta(2, 2 / AMBIENT_SHARE - 2, n)
    for j, (everywhere, named) in enumerate(STATES.values(), start=n_types):
        mean = np.array([named.get(name, everywhere) for name in domain_names])
        usage[:, j] = np.minimum(rng.standard_gamma(0.7, n) * (mean / 0.7)[domain], 0.3)
    rest = np.maximum(1 - usage.sum(axis=1), 0.1)
    spill = rng.beta(1, 1 / SPILL_SHARE - 1, n)
    rows = np.arange(n)
    usage[rows, types] += rest * (1 - spill)
    usage[rows, draw_types(rng, domain, mixture)] += rest * spill
    return usage / usage.sum(axis=1, keepdims=True)


def type_sizes(n_types: int) -> np.ndarray:
    """Transcripts of a cell of each type, relative."""
    return np.array([SIZE.get(t, 1.0) for t in CELL_TYPES[:n_types]])


def draw_counts(rng: np.random.Generator, W: np.ndarray, H: np.ndarray) -> sp.csr_matrix:
    """Poisson counts with mean ``W @ H`` as float32 CSR; rows without any count are drawn again.

    Only blocks of rows are ever dense. Every block has its own stream, so that threads change nothing.
    """
    rows = max(1, BLOCK // H.shape[1])
    starts = range(0, len(W), rows)

    def draw(start: int, stream: np.random.Generator) -> sp.csr_matrix:
        mean = W[start : start + rows] @ H
        counts = stream.poisson(mean)
        while (empty := ~counts.any(axis=1)).any():
            counts[empty] = stream.poisson(mean[empty])
        return sp.csr_matrix(counts.astype(np.float32))

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return sp.vstack(list(pool.map(draw, starts, rng.spawn(len(starts)))), format="csr")
