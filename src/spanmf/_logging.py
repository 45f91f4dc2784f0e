"""The logger "spanmf", a timing context, and a line that names a pause.

The package installs no handler: ``logging.basicConfig(level="INFO")`` shows what it does.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger("spanmf")
logger.addHandler(logging.NullHandler())


@contextmanager
def timed(what: str) -> Iterator[list[str]]:
    """Log one INFO line ``what: … (seconds)`` when the block ends without an error.

    The block may append words (keys written, sizes) to the list it is given.
    """
    notes: list[str] = []
    start = time.perf_counter()
    yield notes
    logger.info("%s: %s (%.2f s)", what, ", ".join(notes) or "done", time.perf_counter() - start)


@contextmanager
def status(message: str, *, show: bool = True) -> Iterator[None]:
    """Show a line on the terminal or in the notebook while the block runs, and take it away again."""
    # never False: TQDM_DISABLE may ask for silence, as the command line does where stderr is a file
    off = {} if show else {"disable": True}
    with tqdm(total=0, desc=message, bar_format="{desc} …", leave=False, **off):
        yield
