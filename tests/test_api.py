"""The public names and signatures: a change here is a change for every user."""

from __future__ import annotations

import inspect
from operator import attrgetter

import pytest

import spanmf as sn

REQUIRED = inspect.Parameter.empty

# name: (positional parameters with defaults, keyword-only parameters with defaults that must be there)
SIGNATURES = {
    "gr.contact_neighbors": (
        {"adata": REQUIRED, "contact_radius": None, "context_radius": None},
        {
            "contact_weight": 2.5,
            "context_weight": 1.0,
            "combine": "max",
            "spatial_key": "spatial",
            "library_key": None,
            "preset": None,
            "table_key": None,
            "key_added": "contact",
            "store": True,
            "copy": False,
        },
    ),
    "gr.hybrid_neighbors": (
        {"adata": REQUIRED, "alpha": 0.5},
        {
            "connectivity_key": None,
            "use_rep": "X_snmf",
            "feature_key": None,
            "scale": "gram",
            "n_neighbors": 15,
            "rng": 0,
            "table_key": None,
            "key_added": "hybrid",
            "copy": False,
        },
    ),
    "gr.graph_summary": ({"adata": REQUIRED, "key": None}, {"library_key": None}),
    "tl.nmf": (
        {"adata": REQUIRED, "n_components": 10},
        {
            "layer": None,
            "mask_var": "auto",
            "loss": "frobenius",
            "init": "auto",
            "alpha_W": 0.0,
            "alpha_H": "same",
            "l1_ratio": 0.0,
            "max_iter": 500,
            "normalize": False,
            "preset": None,
            "rng": 0,
            "random_state": None,
            "device": "cpu",
            "key_added": "nmf",
            "table_key": None,
            "copy": False,
        },
    ),
    "tl.snmf": (
        {"adata": REQUIRED, "n_components": 10},
        {
            "smoothing": "refit",
            "beta": 0.6,
            "n_steps": 2,
            "connectivity_key": None,
            "layer": None,
            "mask_var": "auto",
            "loss": "frobenius",
            "preset": None,
            "rng": 0,
            "random_state": None,
            "device": "cpu",
            "key_added": "snmf",
            "table_key": None,
            "copy": False,
        },
    ),
    "tl.hsnmf": (
        {"adata": REQUIRED, "n_components": 10},
        {
            "n_domains": None,
            "clustering": "auto",
            "flavor": "networkit",
            "smooth": True,
            "scale": "gram",
            "use_rep": None,
            "n_neighbors": 15,
            "n_landmarks": None,
            "connectivity_key": None,
            "layer": None,
            "mask_var": "auto",
            "loss": "frobenius",
            "normalize": False,
            "preset": None,
            "rng": 0,
            "random_state": None,
            "device": "cpu",
            "key_added": "hsnmf",
            "copy": False,
        },
    ),
    "tl.sweep": (
        {"adata": REQUIRED, "n_components": (5, 10, 15, 20, 25), "resolution": (0.2, 0.4, 0.6, 0.8, 1.0)},
        {
            "rng": 0,
            "random_state": None,
            "file": None,
            "keep_labels": False,
            "store": False,
            "key_added": "sweep",
            "library_key": None,
            "reference_key": None,
            "gene_sets": None,
            "connectivity_key": None,
            "spatial_key": "spatial",
            "layer": None,
            "mask_var": "auto",
            "preset": None,
            "table_key": None,
        },
    ),
    "tl.select_n_components": (
        {"adata": REQUIRED, "n_components": range(2, 21)},
        {
            "n_folds": 4,
            "n_var_folds": 5,
            "n_tiles": 40,
            "n_restarts": 5,
            "spatial_key": "spatial",
            "library_key": None,
            "layer": None,
            "mask_var": "auto",
            "loss": "frobenius",
            "normalize": False,
            "rng": 0,
            "random_state": None,
            "key_added": "select_n_components",
            "table_key": None,
        },
    ),
    "tl.consensus_nmf": (
        {"adata": REQUIRED, "n_components": 10},
        {
            "n_restarts": 20,
            "density_threshold": 0.5,
            "layer": None,
            "mask_var": "auto",
            "loss": "frobenius",
            "normalize": False,
            "rng": 0,
            "random_state": None,
            "key_added": "consensus_nmf",
            "table_key": None,
            "copy": False,
        },
    ),
    "pl.rank_selection": ({"table": REQUIRED}, {}),
    "tl.project": (
        {"adata_query": REQUIRED, "adata_ref": REQUIRED},
        {"key": "nmf", "layer": None, "device": "cpu", "key_added": None},
    ),
    "tl.reference_profiles": ({"adata_sc": REQUIRED, "groupby": REQUIRED}, {"layer": None, "table_key": None}),
    "tl.stl_nmf": (
        {"adata": REQUIRED, "reference": REQUIRED},
        {
            "region_key": None,
            "connectivity_key": None,
            "likelihood": "auto",
            "graph_weight": 10.0,
            "border_weight": 0.3,
            "region_weight": 0.0,
            "reference_weight": 2.0,
            "platform": "auto",
            "n_genes": 3000,
            "interval": None,
            "preset": None,
            "weights": None,
            "library_key": None,
            "device": "cpu",
            "key_added": "stl_nmf",
            "copy": False,
        },
    ),
    "tl.select_stl_weights": (
        {"adata": REQUIRED, "reference": REQUIRED},
        {
            "region_key": None,
            "connectivity_key": None,
            "border_weight": 0.3,
            "cells_per_spot": (3, 12),
            "library_key": None,
            "key_added": "select_stl_weights",
        },
    ),
    "tl.learn_stl_nmf": (
        {"triplets": REQUIRED},
        {"group": "meant", "validation": 0.25, "region_key": "region", "device": "auto", "preset": None, "rng": 0},
    ),
    "tl.fast_nmf": (
        {"adata": REQUIRED, "n_components": 10},
        {
            "connectivity_key": None,
            "layer": None,
            "mask_var": "auto",
            "init": "auto",
            "rng": 0,
            "key_added": "fast_nmf",
        },
    ),
    "datasets.stl_nmf_triplets": (
        {"n": 15, "n_types": 5},
        {"kind": "noisy", "layout": "regions", "count_noise": 0.0, "adata": None, "reference": None, "rng": 0},
    ),
    "tl.top_features": ({"adata": REQUIRED, "key": "hsnmf", "n_features": 10}, {}),
    "tl.match_labels": ({"adata": REQUIRED, "cluster_key": REQUIRED, "reference_key": REQUIRED}, {"key_added": None}),
    "pl.pareto": (
        {"table": REQUIRED, "x": None, "y": None},
        {"objectives": None, "label": "front", "ax": None},
    ),
    "metrics.pareto_front": ({"table": REQUIRED, "objectives": None}, {}),
    "metrics.hypervolume": ({"table": REQUIRED, "objectives": None}, {"reference": None}),
    "metrics.panel": (
        {"adata": REQUIRED, "keys": REQUIRED},
        {
            "library_key": None,
            "per_library": False,
            "connectivity_key": None,
            "spatial_key": "spatial",
            "reference_key": None,
            "markers": None,
            "gene_sets": None,
            "layer": None,
            "rng": 0,
            "table_key": None,
        },
    ),
    "tl.select_n_domains": (
        {"adata": REQUIRED, "n_domains": range(2, 13)},
        {
            "n_components": 10,
            "clustering": "potts",
            "smooth": True,
            "scale": "gram",
            "use_rep": None,
            "connectivity_key": None,
            "spatial_key": "spatial",
            "library_key": None,
            "layer": None,
            "mask_var": "auto",
            "loss": "frobenius",
            "normalize": False,
            "rng": 0,
            "random_state": None,
            "key_added": "select_n_domains",
            "table_key": None,
        },
    ),
    "tl.composition": (
        {"adata": REQUIRED, "key": REQUIRED, "library_key": REQUIRED},
        {"condition_key": None, "key_added": None, "table_key": None},
    ),
    "pl.composition": (
        {"adata": REQUIRED, "key": REQUIRED, "library_key": REQUIRED},
        {"condition_key": None, "palette": None, "ax": None, "table_key": None},
    ),
    "pl.convergence": ({"adata": REQUIRED, "keys": "hsnmf"}, {"ax": None, "table_key": None}),
    "pl.domain_selection": ({"table": REQUIRED}, {"ax": None}),
    "io.write_xenium_explorer": (
        {"adata": REQUIRED, "key": REQUIRED, "path": REQUIRED},
        {"cell_id_key": None, "palette": None, "table_key": None},
    ),
    "io.to_spatialdata": (
        {"adata": REQUIRED, "sdata": REQUIRED, "keys": "hsnmf"},
        {"match_on": None, "table_key": None},
    ),
    "io.write_report": (
        {"adata": REQUIRED, "path": "report.html"},
        {
            "key": "hsnmf",
            "library_key": None,
            "reference_key": None,
            "metrics": None,
            "sweep": None,
            "gene_sets": None,
            "connectivity_key": None,
            "spatial_key": "spatial",
            "layer": None,
            "um_per_unit": None,
            "title": "Tissue domains",
            "date": None,
            "table_key": None,
        },
    ),
    "pl.metric_panel": ({"table": REQUIRED}, {"metrics": None, "keys": None, "library": "all", "ax": None}),
    "pp.clr": ({"adata": REQUIRED}, {"layer": None, "table_key": None, "copy": False}),
    "pp.arcsinh": ({"adata": REQUIRED, "cofactor": None}, {"layer": None, "table_key": None, "copy": False}),
    "tl.joint_nmf": (
        {"data": REQUIRED, "n_components": 10},
        {
            "obsm_key": None,
            "preprocessing": "auto",
            "weights": "balanced",
            "missing": "mask",
            "loss": "frobenius",
            "private": 0,
            "smoothing": None,
            "beta": 0.6,
            "n_steps": 2,
            "laplacian_weight": 1.0,
            "connectivity_key": None,
            "init": "auto",
            "max_iter": 500,
            "preset": None,
            "rng": 0,
            "random_state": None,
            "device": "cpu",
            "key_added": "joint_nmf",
            "copy": False,
        },
    ),
    "pl.modality_loadings": (
        {"mdata": REQUIRED, "key": "joint_nmf"},
        {"n_features": 8, "components": None, "annotation_key": "annotate_factors", "ncols": 3},
    ),
    "tl.annotate_factors": (
        {"data": REQUIRED, "markers": None},
        {
            "key": "joint_nmf",
            "method": "overlap",
            "rank_by": "specificity",
            "n_genes": 10,
            "n_proteins": 5,
            "threshold": None,
            "preset": None,
            "key_added": "annotate_factors",
            "table_key": None,
        },
    ),
    "tl.assign_clusters": (
        {"data": REQUIRED, "n_clusters": None},
        {
            "key": "joint_nmf",
            "use_neighbors": False,
            "connectivity_key": None,
            "rng": 0,
            "random_state": None,
            "key_added": "assign_clusters",
            "table_key": None,
        },
    ),
    "tl.assign_types": (
        {"data": REQUIRED, "markers": None},
        {
            "key": "joint_nmf",
            "method": "clusters",
            "n_clusters": None,
            "threshold": None,
            "use_neighbors": False,
            "connectivity_key": None,
            "annotation_key": "annotate_factors",
            "rng": 0,
            "random_state": None,
            "key_added": "assign_types",
            "table_key": None,
        },
    ),
    "datasets.cell_markers": ({}, {}),
    "datasets.rna_protein_tissue": (
        {"n_cells": 5_000},
        {"n_genes": 300, "missing": 0.0, "displacement": 0.0, "rng": 0},
    ),
    "datasets.xenium_tissue": ({"n_cells": 20_000}, {}),
    "io.read": ({"path": REQUIRED, "platform": "auto"}, {"table_key": None}),
    "run_joint": (
        {"transcriptome": REQUIRED, "proteome": REQUIRED},
        {
            "n_factors": 15,
            "radius": 50.0,
            "markers": None,
            "output": None,
            "overwrite": False,
            "tx_platform": "auto",
            "prot_platform": "auto",
            "align": "auto",
            "align_radius": None,
            "warp": None,
            "unmatched": "keep",
            "n_niches": 8,
            "library_key": None,
            "rng": 0,
        },
    ),
}
# There with any default: values chosen by evidence may change, names may not.
ALSO = {
    "tl.nmf": {"tol"},
    "tl.joint_nmf": {"tol"},
    "tl.snmf": {"tol", "max_iter", "laplacian_weight"},
    "tl.hsnmf": {"resolution", "alpha", "smoothing", "beta", "n_steps", "max_iter", "tol"},
}
NAMES = {
    "gr": {"contact_neighbors", "graph_summary", "hybrid_neighbors"},
    "tl": {
        "consensus_nmf",
        "select_n_components",
        "hsnmf",
        "joint_nmf",
        "match_labels",
        "nmf",
        "project",
        "snmf",
        "sweep",
        "top_features",
    },
    "metrics": {
        "Enrichment",
        "LabelAgreement",
        "MarkerCoherence",
        "MarkerExclusion",
        "enrichment",
        "marker_coherence",
        "marker_exclusion_rate",
        "marker_specificity",
        "marker_table",
        "asw",
        "gearys_c",
        "per_library",
        "label_agreement",
        "panel",
        "pas",
        "chaos",
        "davies_bouldin",
        "edge_agreement",
        "explained_variance",
        "hypervolume",
        "morans_i",
        "pareto_front",
        "reconstruction_error",
        "silhouette",
    },
    "pl": {"domains", "factors", "graph", "loadings", "metric_panel", "pareto", "rank_selection"},
    "io": {"read", "read_gmt", "write_report"},
    "pp": {"arcsinh", "clr"},
    "datasets": {"rna_protein_tissue", "xenium_tissue"},
}


@pytest.mark.parametrize("namespace", NAMES)
def test_names_are_there(namespace):
    assert set(getattr(sn, namespace).__all__) >= NAMES[namespace]


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name):
    parameters = inspect.signature(attrgetter(name)(sn)).parameters.values()
    positional, keyword = SIGNATURES[name]
    assert {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD} == positional
    keyword_only = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert {k: keyword_only.get(k, "not there") for k in keyword} == keyword
    assert set(keyword_only) >= ALSO.get(name, set())


@pytest.mark.parametrize(
    "name", ["nmf", "snmf", "hsnmf", "joint_nmf", "annotate_factors", "assign_clusters", "assign_types"]
)
def test_key_added_defaults_to_the_name(name):
    """Every tl function writes under its own name."""
    assert inspect.signature(getattr(sn.tl, name)).parameters["key_added"].default == name


def test_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = sn.no_such_thing
    assert set(dir(sn)) >= {*sn.__all__, "__version__"}
