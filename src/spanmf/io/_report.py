"""A result as one page to read, print and pass on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .. import _checks, _data
from .._docs import doc
from ._folder import whole_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData


@doc
def write_report(
    adata: AnnData | SpatialData,
    path: str | Path = "report.html",
    *,
    key: str | Sequence[str] = "hsnmf",
    library_key: str | None = None,
    reference_key: str | None = None,
    metrics: pd.DataFrame | str | Path | None = None,
    sweep: pd.DataFrame | str | Path | None = None,
    gene_sets: Mapping[str, Sequence[str]] | str | Path | None = None,
    connectivity_key: str | None = None,
    spatial_key: str = "spatial",
    layer: str | None = None,
    um_per_unit: float | None = None,
    title: str = "Tissue domains",
    date: str | None = None,
    table_key: str | None = None,
) -> None:
    """Write a report on factors and domains: one HTML page that needs no network.

    A summary and warnings in plain words; maps of the domains, what they are and how the samples divide into them; a
    map of every factor beside its genes; every number of :func:`spanmf.metrics.panel` with what it says and what else
    moves it; the graph of cells; convergence; the sweep, if there is one; parameters and versions. Figures are inside
    the page (which stays below 10 MB for 100,000 cells), there is no script in it, and it prints.

    What the table does not hold (coordinates, a graph, a record of the run, a sweep) is named in its place; nothing is
    computed anew except metrics that are not given. The same table gives the same file, byte for byte.

    Parameters
    ----------
    {adata}
    path
        The file to write. One that is there already is replaced once the new one is complete.
    key
        Base name of the result: labels in ``adata.obs``, factors in ``obsm["X_" + key]``, or both. The first of several is
        described in full, the others are compared with it (maps of labels, metrics).
    {library_key}
        ``None``: the one that the graph was built with, if it is recorded.
    reference_key
        Column of ``adata.obs`` with known labels: their map, what each domain mostly is, and ARI, NMI and the like.
    metrics
        What :func:`spanmf.metrics.panel` returned, or a CSV file of it. ``None``: it is computed.
    sweep
        What :func:`spanmf.tl.sweep` returned, or a CSV file of it. ``None``: ``adata.uns["sweep"]["table"]``, if it is there.
    gene_sets
        Gene sets for the enrichment, where ``metrics`` are computed: a mapping from name to genes, or a GMT file.
    {connectivity_key}
        A graph that the run records comes before both.
    {spatial_key}
    layer
        Matrix for the metrics. ``None``: the layer that the run records, else ``adata.X``.
    um_per_unit
        µm in one unit of the coordinates, for the scale bars. ``None``: as for :func:`spanmf.pl.domains`.
    title
        Heading of the page.
    date
        Text under the heading, such as a date. ``None``: no date.
    {table_key}

    Returns
    -------
    Nothing; the table is not changed.

    Raises
    ------
    KeyError
        If the table holds neither labels nor factors of a key, or a column that was named is not there.
    ValueError
        If a table of metrics or of a sweep is empty, or of something else.
    FileNotFoundError
        If there is no folder for ``path``.

    See Also
    --------
    spanmf.metrics.panel : the numbers as a table.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(500)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = pathlib.Path(folder) / "report.html"
    ...     sn.io.write_report(adata, page, key="domain", library_key="library")
    ...     "<h2>Domains</h2>" in page.read_text(encoding="utf-8")
    True
    """
    from .. import _report  # draws: only here does io need plots

    table = _data.get_table(adata, table_key)
    path = Path(path).expanduser()
    _checks.check_writable(path)
    subject = _report.read_subject(
        table, [key] if isinstance(key, str) else list(key), library_key=library_key, reference_key=reference_key,
        metrics=metrics, sweep=sweep, gene_sets=gene_sets, connectivity_key=connectivity_key, spatial_key=spatial_key,
        layer=layer, um_per_unit=um_per_unit,
    )  # fmt: skip
    page = _report.build(subject, title=title, date=date)
    with whole_file(path) as part:
        part.write_text(page, encoding="utf-8", newline="\n")
