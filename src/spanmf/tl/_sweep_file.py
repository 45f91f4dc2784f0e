"""The file of a sweep: one line a finished run, under a line that says which table and options they are of.

JSON lines. A run is appended when it is finished, so an interruption loses none; a last line that was cut short is
dropped when the file is opened again.
"""

from __future__ import annotations

import json
import os
import zlib
from base64 import b64decode, b64encode
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = "spanmf sweep 1"
Key = tuple[Any, ...]
LABELS = "labels"


class SweepFile:
    """Finished runs by their place in the grid; ``None`` as the path keeps them in memory only."""

    def __init__(self, path: Path | None, subject: dict[str, Any], axes: tuple[str, ...]) -> None:
        self.path, self.axes = path, axes
        self.runs: dict[Key, dict[str, Any]] = {}
        if path is None:
            return
        if path.exists() and path.stat().st_size:
            self._read(subject)
        else:
            self._create(subject)

    def add(self, run: dict[str, Any], labels: np.ndarray | None = None) -> None:
        """Keep a finished run; it is on the disk when this returns."""
        line = dict(run)
        if labels is not None:
            packed = zlib.compress(np.ascontiguousarray(labels, dtype="<i4").tobytes(), 1)
            line[LABELS] = b64encode(packed).decode()
        self.runs[self._key(run)] = line
        if self.path is None:
            return
        with self.path.open("ab") as file:
            file.write(_dumped(line))
            file.flush()
            os.fsync(file.fileno())

    def has(self, key: Key, *, labels: bool) -> bool:
        """Whether a run is finished, and its labels were kept where they are wanted."""
        return key in self.runs and (not labels or LABELS in self.runs[key])

    def labels(self, key: Key) -> np.ndarray:
        """Codes of the labels of a finished run."""
        return np.frombuffer(zlib.decompress(b64decode(self.runs[key][LABELS])), dtype="<i4")

    def _key(self, run: dict[str, Any]) -> Key:
        return tuple(run[name] for name in self.axes)

    def _create(self, subject: dict[str, Any]) -> None:
        if not self.path.parent.is_dir():
            msg = f"There is no folder {str(self.path.parent)!r} for the file of the sweep."
            raise FileNotFoundError(msg)
        part = self.path.with_name(self.path.name + ".part")
        part.write_bytes(_dumped({"format": FORMAT} | subject))
        os.replace(part, self.path)

    def _read(self, subject: dict[str, Any]) -> None:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        lines = content[:whole].splitlines()
        found = _loaded(lines[0]) if lines else None
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            msg = f"{str(self.path)!r} is not a file of a sweep. Name a new file, or one that `sn.tl.sweep` made."
            raise ValueError(msg)
        check_subject(str(self.path), found, json.loads(_dumped({"format": FORMAT} | subject)))
        for number, line in enumerate(lines[1:], 2):
            run = _loaded(line)
            if not isinstance(run, dict) or not {*self.axes} <= {*run}:
                msg = f"Line {number} of {str(self.path)!r} is damaged. Delete that line to have the run made again."
                raise ValueError(msg)
            self.runs[self._key(run)] = run
        if whole < len(content):  # cut short by a kill or a full disk
            os.truncate(self.path, whole)


def check_subject(name: str, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """The runs of a file must be of the same table, with the same options."""
    differ = []
    for part in sorted({*found["table"], *wanted["table"]}):
        if found["table"].get(part) != wanted["table"].get(part):
            differ.append(f"the {part}")
    for option in sorted({*found["options"], *wanted["options"]}):
        there, here = (side["options"].get(option) for side in (found, wanted))
        if there != here:
            differ.append(f"`{option}` ({there!r} there, {here!r} now)")
    if differ:
        msg = (
            f"{name!r} holds runs of another table or with other options. What differs: {', '.join(differ)}. Name a new "
            "file, or give the table and options as they were."
        )
        raise ValueError(msg)


def digest(*parts: Any) -> str:
    """Short fingerprint of arrays and texts."""
    state = blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, np.ndarray) and part.dtype != object:
            state.update(f"{part.dtype.str}{part.shape}".encode())
            state.update(np.ascontiguousarray(part).view(np.uint8).data)
        else:
            state.update(json.dumps(part, default=str, sort_keys=True).encode())
    return state.hexdigest()


def _dumped(line: dict[str, Any]) -> bytes:
    plain = {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in line.items()}
    return json.dumps(plain, default=_plain).encode() + b"\n"


def _plain(value: Any) -> Any:
    """Numbers of numpy as Python's own."""
    return value.item()


def _loaded(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
