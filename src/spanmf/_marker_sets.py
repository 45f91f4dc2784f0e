"""Markers of cell types: how they are given, and which features of a table they name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import _checks

KINDS = ("gene", "protein")
COLUMNS = ("cell_type", "marker")
LAYOUTS = (
    "a mapping from type to names, a table with the columns `cell_type`, `marker` and, if you like, `kind` ('gene' or "
    "'protein'), a file of such a table (.csv, .tsv), or a GMT file"
)
SUFFIX = re.compile(r"(?:[ _.\-](?:totalseq[a-d]?|total[ _.\-]?seq[ _.\-]?[a-d]?|protein|prot|adt|ab|antibody))+$")
FAMILY = re.compile(r"^(KRT)\d+[A-Z]?$")
# Proteins whose name is not that of their gene, as antibodies are labelled; separators and case do not matter.
ALIASES = {
    "CD1C": "CD1C", "BDCA1": "CD1C", "CD3": "CD3E CD3D CD3G", "CD8": "CD8A CD8B", "CD8ALPHA": "CD8A", "CD10": "MME", "CD11B": "ITGAM", "CD11C": "ITGAX",
    "CD15": "FUT4", "CD16": "FCGR3A FCGR3B", "CD20": "MS4A1", "CD21": "CR2", "CD23": "FCER2", "CD25": "IL2RA",
    "CD29": "ITGB1", "CD30": "TNFRSF8", "CD31": "PECAM1", "CD32": "FCGR2A", "CD35": "CR1", "CD39": "ENTPD1", "CD41": "ITGA2B",
    "CD45": "PTPRC", "CD45RA": "PTPRC", "CD45RO": "PTPRC", "B220": "PTPRC", "CD49A": "ITGA1", "CD49F": "ITGA6", "CD54": "ICAM1",
    "CD56": "NCAM1", "CD57": "B3GAT1", "CD61": "ITGB3", "CD62L": "SELL", "CD64": "FCGR1A", "CD66B": "CEACAM8", "CD71": "TFRC",
    "CD73": "NT5E", "CD90": "THY1", "CD95": "FAS", "CD103": "ITGAE", "CD105": "ENG", "CD107A": "LAMP1", "CD117": "KIT",
    "CKIT": "KIT", "CD123": "IL3RA", "CD127": "IL7R", "CD134": "TNFRSF4", "CD137": "TNFRSF9", "CD138": "SDC1", "CD140A": "PDGFRA",
    "CD140B": "PDGFRB", "CD141": "THBD", "CD144": "CDH5", "CD146": "MCAM", "CD161": "KLRB1", "CD169": "SIGLEC1",
    "CD206": "MRC1", "CD207": "CD207", "LANGERIN": "CD207", "CD235A": "GYPA", "CD278": "ICOS", "CD279": "PDCD1", "PD1": "PDCD1", "CD274": "CD274",
    "PDL1": "CD274", "CD303": "CLEC4C", "CD324": "CDH1", "CD325": "CDH2", "CD326": "EPCAM", "CD335": "NCR1", "NKP46": "NCR1",
    "CD340": "ERBB2", "HER2": "ERBB2", "CD366": "HAVCR2", "TIM3": "HAVCR2", "F480": "ADGRE1", "GR1": "LY6G LY6C1 LY6C2", "NK11": "KLRB1C",
    "MHCII": "HLA-DRA HLA-DRB1 H2-AB1 H2-AA", "HLADR": "HLA-DRA HLA-DRB1 HLA-DRB5", "HLAABC": "HLA-A HLA-B HLA-C",
    "PANCK": "KRT*", "PANCYTOKERATIN": "KRT*", "PANKERATIN": "KRT*", "CYTOKERATIN": "KRT*", "KERATIN": "KRT*", "CK": "KRT*", "AE1AE3": "KRT*",
    "ECAD": "CDH1", "ECADHERIN": "CDH1", "NCADHERIN": "CDH2", "VECADHERIN": "CDH5", "SMA": "ACTA2", "ASMA": "ACTA2",
    "ALPHASMA": "ACTA2", "SMACTIN": "ACTA2", "SMOOTHMUSCLEACTIN": "ACTA2", "ALPHASMOOTHMUSCLEACTIN": "ACTA2", "DESMIN": "DES",
    "VIMENTIN": "VIM", "VWF": "VWF", "PODOPLANIN": "PDPN", "GP38": "PDPN", "D240": "PDPN", "COLLAGEN": "COL1A1 COL1A2",
    "COLLAGENI": "COL1A1 COL1A2", "COLLAGEN1": "COL1A1 COL1A2", "COLLAGENIII": "COL3A1", "COLLAGENIV": "COL4A1 COL4A2", "COLLAGEN4": "COL4A1 COL4A2", "FIBRONECTIN": "FN1",
    "KI67": "MKI67", "GRANZYMEB": "GZMB", "GRANZYMEA": "GZMA", "GRANZYMEK": "GZMK", "PERFORIN": "PRF1", "GNLY": "GNLY", "TRYPTASE": "TPSAB1 TPSB2",
    "MASTCELLTRYPTASE": "TPSAB1 TPSB2", "MYELOPEROXIDASE": "MPO", "IBA1": "AIF1", "NEUN": "RBFOX3", "SYNAPTOPHYSIN": "SYP",
    "CHROMOGRANINA": "CHGA", "IGA": "IGHA1 IGHA2", "IGD": "IGHD", "IGG": "IGHG1 IGHG2", "IGM": "IGHM", "TBET": "TBX21",
    "P63": "TP63", "ER": "ESR1", "ERALPHA": "ESR1", "PR": "PGR", "TCRAB": "TRAC", "TCRGD": "TRDC", "TER119": "LY76",
}  # fmt: skip


@dataclass(frozen=True)
class MarkerSets:
    """Markers by type and kind; a kind of ``""`` counts among genes and proteins alike."""

    names: list[str]
    members: list[dict[str, list[str]]]  # of each type: kind -> names as they were given

    def of(self, t: int, kinds: Iterable[str]) -> list[str]:
        """Markers of a type that may be looked for among features of these kinds."""
        return list(dict.fromkeys(m for kind in kinds for m in self.members[t].get(kind, [])))


def read(markers: Any) -> MarkerSets:
    """Markers from any of the forms in which they may be given."""
    if markers is None:
        from .datasets import cell_markers

        markers = cell_markers()
    what = "The table of markers"
    if isinstance(markers, (str, Path)):
        what = repr(str(markers))
        markers = _from_file(Path(markers))
    if isinstance(markers, pd.DataFrame):
        return _from_table(markers, what)
    if isinstance(markers, Mapping) and any(isinstance(v, Mapping) for v in markers.values()):
        return _from_nested(markers)
    lists = _checks.check_gene_lists(markers, "`markers`", "cell type")
    return MarkerSets(list(lists), [{"": names} for names in lists.values()])


def _from_file(path: Path) -> Any:
    _checks.check_exists(path)
    if ".gmt" in path.suffixes:
        from .io import read_gmt

        return read_gmt(path)
    with _checks.reading(path, "a table of markers"):
        return pd.read_csv(path, sep="\t" if ".tsv" in path.suffixes else None, engine="python", comment="#")


def _from_table(table: pd.DataFrame, what: str) -> MarkerSets:
    missing = [c for c in COLUMNS if c not in table]
    if missing:
        wide = " If every column is a type: `table.melt(var_name='cell_type', value_name='marker').dropna()`."
        msg = f"{what} has no column {_checks._listed(missing)}; it holds {_checks._listed(table.columns)}. Markers may be given as {LAYOUTS}.{wide}"
        raise ValueError(msg)
    table = table.dropna(subset=list(COLUMNS))
    kinds = table["kind"].fillna("").astype(str).str.strip().str.lower() if "kind" in table else None
    if kinds is not None and (wrong := sorted(set(kinds) - {"", *KINDS})):
        msg = f"The column `kind` of {what} may hold 'gene', 'protein' or nothing, not {_checks._listed(wrong)}."
        raise ValueError(msg)
    out: dict[str, dict[str, list[str]]] = {}
    for i, (name, marker) in enumerate(zip(table["cell_type"].astype(str), table["marker"].astype(str), strict=True)):
        kind = "" if kinds is None else kinds.iloc[i]
        out.setdefault(name.strip(), {}).setdefault(kind, []).append(marker.strip())
    return _checked(out, what)


def _from_nested(markers: Mapping[str, Any]) -> MarkerSets:
    """Types whose genes and proteins are told apart: ``{"B": {"gene": [...], "protein": [...]}}``."""
    out: dict[str, dict[str, list[str]]] = {}
    for name, value in markers.items():
        kinds = value if isinstance(value, Mapping) else {"": value}
        _checks.check_members(f"kinds of markers of {name!r}", kinds, ("", *KINDS))
        lists = _checks.check_gene_lists(kinds, f"`markers[{name!r}]`", "kind")
        out[str(name)] = lists
    return _checked(out, "`markers`")


def _checked(out: dict[str, dict[str, list[str]]], what: str) -> MarkerSets:
    if not out:
        msg = f"{what} is empty: at least one cell type with its markers is needed. They may be given as {LAYOUTS}."
        raise ValueError(msg)
    lists = [{kind: list(dict.fromkeys(names)) for kind, names in kinds.items()} for kinds in out.values()]
    return MarkerSets(list(out), lists)


def molecules(name: str) -> tuple[frozenset[str], frozenset[str]]:
    """Gene symbols that a gene's or protein's name stands for, and the families they belong to."""
    text = SUFFIX.sub("", str(name).strip().lower()).upper()
    text = text.split("_", 1)[-1] if re.match(r"^(?:ADT|PROT|PROTEIN|AB)_", text) else text
    plain = re.sub(r"[^A-Z0-9]", "", text.replace("Α", "ALPHA"))
    if plain in ALIASES:
        own = frozenset(ALIASES[plain].split())
    elif re.fullmatch(r"C?K\d{1,2}|CYTOKERATIN\d{1,2}|KERATIN\d{1,2}", plain) and plain.startswith(
        ("CK", "CYTO", "KER")
    ):
        own = frozenset({"KRT" + re.sub(r"\D", "", plain)})
    else:
        own = frozenset({plain})
    own = frozenset(re.sub(r"[^A-Z0-9*]", "", m) for m in own)
    return own, frozenset(f"{m[1]}*" for o in own if (m := FAMILY.match(o)))


def find(markers: Iterable[str], features: FeatureIndex) -> np.ndarray:
    """Positions of the features that any of the markers names (sorted, each once)."""
    found: set[int] = set()
    for marker in markers:
        own, families = molecules(marker)
        for m in own:
            found.update(features.by_molecule.get(m, ()))
            found.update(features.by_family.get(m, ()))
        for f in families:
            found.update(features.by_molecule.get(f, ()))
    return np.array(sorted(found), dtype=np.int64)


@dataclass(frozen=True)
class FeatureIndex:
    """Where a molecule's features stand in a table."""

    by_molecule: dict[str, list[int]]
    by_family: dict[str, list[int]]

    @classmethod
    def of(cls, names: Iterable[str]) -> FeatureIndex:
        """Index the names of a table's variables."""
        own: dict[str, list[int]] = {}
        family: dict[str, list[int]] = {}
        for j, name in enumerate(names):
            molecule, families = molecules(name)
            for m in molecule:
                own.setdefault(m, []).append(j)
            for f in families:
                family.setdefault(f, []).append(j)
        return cls(own, family)
