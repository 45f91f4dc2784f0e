"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A dask cluster of two processes on this machine."""
    dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
    # a test fails, and does not wait for ever
    patient = dask.config.set({"distributed.scheduler.no-workers-timeout": "60s"})
    ports = {"dashboard_address": ":0", "worker_dashboard_address": ":0"}
    with (
        patient,
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, **ports) as workers,
        distributed.Client(workers, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def client(cluster: Any) -> Iterator[Any]:
    """What is lazy is computed there."""
    with cluster.as_current():
        yield cluster
