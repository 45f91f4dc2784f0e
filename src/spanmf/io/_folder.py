"""A folder of results that is there whole or not at all."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path


@contextmanager
def whole_folder(out: Path, replaces: Collection[str] = ()) -> Iterator[Path]:
    """A new folder to write into, whose files come to ``out`` if the block ends without an error.

    If it does not, or is interrupted, nothing of it is left, and what was in ``out`` is as it was. Of the files that
    are in ``out`` already, those named in ``replaces`` or like a new one go, all others stay.
    """
    out = out.absolute()
    beside = next(p for p in (out, *out.parents) if p.is_dir())  # on the file system that `out` is or will be on
    made = beside / f".{out.name}-{uuid4().hex[:8]}.part"
    try:
        made.mkdir()
        yield made
        _publish(made, out, replaces)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _publish(made: Path, out: Path, replaces: Collection[str]) -> None:
    """Move a finished folder to its place; where there is one already, exchange its files, or put all of them back."""
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        os.replace(made, out)
        return
    new = sorted(p.name for p in made.iterdir())
    before = made / ".before"
    before.mkdir()
    try:
        for name in {*new, *replaces}:
            if (out / name).exists():
                os.replace(out / name, before / name)
        for name in new:
            os.replace(made / name, out / name)
    except BaseException:
        for name in new:
            if not (made / name).exists():
                os.replace(out / name, made / name)
        for kept in before.iterdir():
            os.replace(kept, out / kept.name)
        raise


@contextmanager
def whole_file(out: Path) -> Iterator[Path]:
    """A name beside ``out`` to write to, which becomes ``out`` if the block ends without an error.

    If it does not, or is interrupted, nothing of it is left, and what was at ``out`` is as it was.
    """
    out = out.absolute()
    part = out.with_name(f".{uuid4().hex[:8]}-{out.name}")  # the suffixes stay, as writers look at them
    try:
        yield part
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
