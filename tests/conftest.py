"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before numba: threads that spin make small runs 80 times slower

import matplotlib as mpl
import pytest

mpl.use("Agg")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real tissues: SPANMF_TEST_DATA, else ../shared/data beside the project."""
    named = os.environ.get("SPANMF_TEST_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real tissues: {folder} is not there (SPANMF_TEST_DATA names another folder)")
    return folder
