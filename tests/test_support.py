"""The shared test tools do what they say: a snapshot sees every kind of change."""

from __future__ import annotations

import numpy as np
import pytest
from support import changed, small_tissue, snapshot, with_slots


def _flip_x(a):
    a.X.data[3] += 1


def _graph(a):
    a.obsp["contact_connectivities"].data[0] = 9


def _nested(a):
    a.uns["contact_neighbors"]["params"]["contact_radius"] = 21.0


def _category(a):
    a.obs["domain"] = a.obs["domain"].cat.add_categories("new")


def _dtype(a):
    a.obsm["X_nmf"] = a.obsm["X_nmf"].astype(np.float64)


def _new_column(a):
    a.var["new"] = 1


@pytest.mark.parametrize(
    ("edit", "where"),
    [
        (_flip_x, "X"),
        (_graph, "obsp/contact_connectivities"),
        (_nested, "uns/contact_neighbors"),
        (_category, "obs/domain"),
        (_dtype, "obsm/X_nmf"),
        (_new_column, "var/new"),
    ],
)
def test_snapshot_sees(edit, where):
    adata = with_slots(small_tissue(60))
    before = snapshot(adata)
    assert changed(before, snapshot(adata.copy())) == []
    edit(adata)
    assert changed(before, snapshot(adata)) == [where]


def test_tissue_is_as_described():
    adata = small_tissue(400)
    assert adata.X.dtype == np.float32
    assert len(np.unique(adata.obsm["spatial"], axis=0)) == 400
    assert (adata.X.sum(0) > 0).all()
    assert (adata.X.sum(1) > 0).all()
    assert set(adata.obs["sample"]) == {"left", "right"}
    graph = with_slots(adata).obsp["contact_connectivities"]
    assert 3 < (graph == 2.5).sum() / 400 < 6
