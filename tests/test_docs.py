"""README and docs say what is there."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

import spanmf as sn

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()


def block(marker: str) -> str:
    """The code block of the README under a marker."""
    return re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```", README, re.DOTALL).group(1)


NAMESPACES = [name for name in sn.__all__ if inspect.ismodule(getattr(sn, name))]


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_every_public_name_has_its_entry(namespace):
    listed = set(re.findall(rf"^ +{namespace}\.(\w+)$", API, re.MULTILINE))
    assert listed == set(import_module(f"spanmf.{namespace}").__all__)


def test_every_name_outside_of_namespaces_has_its_entry():
    assert set(re.findall(r"^ +(\w+)$", API, re.MULTILINE)) == set(sn.__all__) - set(NAMESPACES)


@pytest.mark.parametrize("marker", ["first command", "second command"])
def test_commands_are_one_line(marker):
    """.ci/run takes them from here."""
    assert block(marker).count("\n") == 1
    assert "pip install" in block(marker)


def test_quick_start_runs(monkeypatch):
    tissue = sn.datasets.xenium_tissue(1000)
    tissue.obs["core"] = tissue.obs["library"]
    monkeypatch.setattr(sn.io, "read", lambda _path: tissue)
    code = block("quick start")
    assert len(code.strip().splitlines()) <= 12
    try:
        exec(compile(code, "README.md", "exec"), {})
    finally:
        plt.close("all")
    assert {"X_hsnmf"} <= set(tissue.obsm)
    assert tissue.obs["hsnmf"].nunique() > 1


def test_relative_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README)
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []
