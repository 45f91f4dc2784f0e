"""Gene sets in the GMT format of MSigDB and Enrichr."""

from __future__ import annotations

import gzip
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from .. import _checks

if TYPE_CHECKING:
    from collections.abc import Iterator

GZIP = b"\x1f\x8b"


def read_gmt(path: str | Path) -> dict[str, list[str]]:
    r"""Read gene sets from a GMT file.

    One set a line: name, description and genes, separated by tabs. Sets of the same name are merged, and a gene counts
    once in a set. A weight behind a gene (``"CD3E,1.0"``, as Enrichr's libraries have) is dropped.

    Parameters
    ----------
    path
        The file, plain or compressed by gzip (told by its content).

    Returns
    -------
    dict
        Names of the sets, in the order of the file, and their genes.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is empty, cut short, or not GMT; the error names the line. A last line without an end of line,
        which a cut may have left, is taken with a warning.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import spanmf as sn
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "sets.gmt")
    ...     _ = path.write_text("T_CELL\tof the blood\tCD3E\tCD8A\nB_CELL\t\tMS4A1\n")
    ...     sn.io.read_gmt(path)
    {'T_CELL': ['CD3E', 'CD8A'], 'B_CELL': ['MS4A1']}
    """
    path = Path(path)
    _checks.check_exists(path)
    sets: dict[str, dict[str, None]] = {}
    number, line = 0, "\n"
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        name, _, *fields = [*line.rstrip("\r\n").split("\t"), ""]
        genes = [gene for gene in (field.partition(",")[0].strip() for field in fields) if gene]
        if not name.strip() or not genes:
            _fail(
                path, number, f"{line.strip()[:60]!r} is not a name, a description and at least one gene between tabs"
            )
        sets.setdefault(name.strip(), {}).update(dict.fromkeys(genes))
    if not sets:
        msg = f"{str(path)!r} has no gene set: it is empty."
        raise ValueError(msg)
    if not line.endswith("\n"):
        _checks.warn(
            f"Line {number} of {str(path)!r}, the last, has no end of line. If the file was cut short there, {name!r} misses genes."
        )
    return {name: list(genes) for name, genes in sets.items()}


def _lines(path: Path) -> Iterator[str]:
    """Lines of text, each with its end."""
    number = 0
    with path.open("rb") as file:
        packed = file.peek(2)[:2] == GZIP
        try:
            with gzip.open(file) if packed else nullcontext(file) as rows:
                for raw in rows:
                    number += 1
                    if b"\0" in raw:
                        _fail(path, number, "it holds bytes that are not text")
                    yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            _fail(path, number, "it holds bytes that are not text")
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            _fail(
                path, number + 1, f"the compressed file breaks off or is damaged ({_checks.cause(error).rstrip('.')})"
            )


def _fail(path: Path, number: int, why: str) -> None:
    msg = f"Line {number} of {str(path)!r} could not be read as GMT: {why}. Is the file complete?"
    raise ValueError(msg)
