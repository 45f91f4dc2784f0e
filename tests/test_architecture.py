"""The rules of the layout: who may import whom, what a public function looks like, what `import spanmf` costs."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import spanmf

SRC = Path(spanmf.__file__).parent
MODULES = {
    ".".join(["spanmf", *path.relative_to(SRC).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in sorted(SRC.rglob("*.py"))
}
NAMESPACES = sorted(name for name in spanmf.__all__ if inspect.ismodule(getattr(spanmf, name)))
CONTAINERS_AND_PLOTS = {
    "anndata", "mudata", "pandas", "scanpy", "squidpy", "spatialdata", "spatialdata_io",
    "matplotlib", "seaborn", "xarray", "geopandas",
}  # fmt: skip
DRAWS_ON_CALL = {"spanmf.io._report"}  # reaches pl when a report is written, not before
OPTIONAL = {"spatialdata", "spatialdata_io", "torch", "dask", "decoupler", "gseapy"}


# --- imports --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Import:
    """One imported name: its module, where it stands, and whether it is for type checkers only."""

    module: str
    name: str | None
    line: int
    in_function: bool
    type_checking: bool

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    @property
    def full(self) -> str:
        return self.module if self.name is None else f"{self.module}.{self.name}"


def read_imports(source: str, module: str, *, is_package: bool = False) -> list[Import]:
    """All imports of a source text, relative ones made absolute."""
    found: list[Import] = []

    def visit(node: ast.AST, in_function: bool, type_checking: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(a.name, None, node.lineno, in_function, type_checking) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                up = node.level - is_package
                base = ".".join([*parts[: len(parts) - up], *([node.module] if node.module else [])])
            found.extend(Import(base, a.name, node.lineno, in_function, type_checking) for a in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                visit(child, in_function, True)
            for child in node.orelse:
                visit(child, in_function, type_checking)
            return
        inside = in_function or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            visit(child, inside, type_checking)

    visit(ast.parse(source), False, False)
    return found


@cache
def imports_of(module: str) -> list[Import]:
    path = MODULES[module]
    return read_imports(path.read_text(encoding="utf-8"), module, is_package=path.name == "__init__.py")


def own_modules(i: Import) -> set[str]:
    """Modules of this package that an import loads: the one named, and its parents."""
    name = i.full if i.full in MODULES else i.module
    parts = name.split(".")
    return {".".join(parts[:k]) for k in range(1, len(parts) + 1)} & set(MODULES)


@cache
def reached(module: str) -> frozenset[str]:
    """Every module of this package that a module imports at run time, directly or through others."""
    seen, todo = set(), [module]
    while todo:
        current = todo.pop()
        for i in imports_of(current):
            if not (i.type_checking or (i.in_function and current in DRAWS_ON_CALL)):
                new = own_modules(i) - seen
                seen |= new
                todo.extend(new)
    return frozenset(seen)


def in_namespace(module: str, *names: str) -> bool:
    return any(module == f"spanmf.{n}" or module.startswith(f"spanmf.{n}.") for n in names)


def offenders(modules, wrong) -> list[str]:
    return [f"{m}:{i.line} imports {i.full}" for m in modules for i in imports_of(m) if wrong(i)]


CORE = [m for m in MODULES if in_namespace(m, "core")]


def test_import_reader_sees_every_form():
    source = """
import numpy as np
from . import _keys
from ..core import _graph as g
from .._data import get_table
if TYPE_CHECKING:
    from anndata import AnnData
def f():
    import torch
"""
    found = {(i.full, i.in_function, i.type_checking) for i in read_imports(source, "spanmf.tl._nmf")}
    assert found == {
        ("numpy", False, False),
        ("spanmf.tl._keys", False, False),
        ("spanmf.core._graph", False, False),
        ("spanmf._data.get_table", False, False),
        ("anndata.AnnData", False, True),
        ("torch", True, False),
    }
    assert read_imports("from . import gr", "spanmf", is_package=True)[0].full == "spanmf.gr"


def test_core_knows_arrays_only():
    """Nor does anything that core imports."""
    assert not offenders(CORE, lambda i: i.package in CONTAINERS_AND_PLOTS)
    helpers = {m for c in CORE for m in reached(c)} - set(CORE) - {"spanmf"}
    assert not [m for m in helpers if m.removeprefix("spanmf.").partition(".")[0] in NAMESPACES]
    assert not offenders(helpers, lambda i: i.package in CONTAINERS_AND_PLOTS and not i.type_checking)


@pytest.mark.parametrize(
    ("who", "never"),
    [(("gr", "pp", "tl", "metrics", "datasets", "io"), "pl"), (("pl",), "tl"), (("gr",), "tl")],
    ids=["not-pl", "pl-not-tl", "gr-not-tl"],
)
def test_namespaces_do_not_reach(who, never):
    modules = [m for m in MODULES if in_namespace(m, *who)]
    assert not [(m, r) for m in modules for r in reached(m) if in_namespace(r, never)]


def test_nobody_imports_cli():
    assert not offenders([m for m in MODULES if m != "spanmf.__main__"], lambda i: "spanmf.cli" in (i.module, i.full))


def test_optional_packages_are_imported_in_functions():
    assert not offenders(MODULES, lambda i: i.package in OPTIONAL and not i.in_function and not i.type_checking)


def is_foreign(module: str) -> bool:
    return module.partition(".")[0] not in sys.stdlib_module_names | {"spanmf"}


def test_no_private_module_of_another_package():
    def private(i: Import) -> bool:
        return is_foreign(i.module) and any(p.startswith("_") and not p.startswith("__") for p in i.full.split("."))

    assert not offenders(MODULES, private)


def test_no_private_attribute_of_another_package():
    found = []
    for module, path in MODULES.items():
        aliases = {}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                aliases |= {(a.asname or a.name.partition(".")[0]): a.name for a in node.names if is_foreign(a.name)}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and re.match(r"_[^_]", node.attr):
                root = node.value
                while isinstance(root, ast.Attribute):
                    root = root.value
                if isinstance(root, ast.Name) and root.id in aliases:
                    found.append(f"{module}:{node.lineno} uses {ast.unparse(node)}")
    assert not found


def test_nothing_is_asserted_printed_or_shown():
    """User input is refused by exceptions (`assert` goes with -O), words go to the logger, plots are not shown."""
    found = []
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assert) and not ast.unparse(node.test).endswith(
                " is not None"
            ):  # for type checkers
                found.append(f"{module}:{node.lineno} assert")
            elif isinstance(node, ast.Call) and module not in ("spanmf.cli", "spanmf.__main__"):
                called = ast.unparse(node.func)
                if called == "print" or called.endswith("plt.show"):
                    found.append(f"{module}:{node.lineno} {called}")
    assert not found


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import spanmf", {"squidpy", "spatialdata", "torch", "scanpy", "matplotlib", "numba", "sklearn"}),
        (f"from spanmf import {', '.join(NAMESPACES)}", {"squidpy", "spatialdata", "torch"}),
    ],
    ids=["package", "namespaces"],
)
def test_import_is_light(statement, absent):
    code = f"import sys; {statement}; print(sorted({absent!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- public functions -----------------------------------------------------------------------------------------------

PUBLIC = {
    f"{ns}.{name}": getattr(import_module(f"spanmf.{ns}"), name)
    for ns in NAMESPACES
    for name in getattr(import_module(f"spanmf.{ns}"), "__all__", [])
} | {name: getattr(spanmf, name) for name in spanmf.__all__ if name not in NAMESPACES}
FUNCTIONS = {name: f for name, f in PUBLIC.items() if inspect.isroutine(f)}
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
SECTION = re.compile(r"^(?P<title>[A-Z][A-Za-z ]+)\n-{3,}$", re.MULTILINE)

each_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())


def sections(function) -> dict[str, str]:
    """Text of each numpydoc section of a docstring."""
    text = inspect.getdoc(function) or ""
    marks = list(SECTION.finditer(text))
    ends = [m.start() for m in marks[1:]] + [len(text)]
    return {m["title"]: text[m.end() : end] for m, end in zip(marks, ends, strict=True)}


@pytest.mark.parametrize("ns", NAMESPACES)
def test_all_names_what_is_public(ns):
    module = import_module(f"spanmf.{ns}")
    assert list(module.__all__) == sorted(set(module.__all__))
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and callable(value) and getattr(value, "__module__", "").startswith("spanmf.")
    }
    assert public == set(module.__all__)


@each_function
def test_at_most_three_positional(function):
    parameters = inspect.signature(function).parameters.values()
    assert [p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL] == []
    assert len([p for p in parameters if p.kind in POSITIONAL]) <= 3


@each_function
def test_annotations_are_complete(function):
    signature = inspect.signature(function)
    assert [p.name for p in signature.parameters.values() if p.annotation is inspect.Parameter.empty] == []
    assert signature.return_annotation is not inspect.Signature.empty


@each_function
def test_docstring_is_complete(function):
    text = inspect.getdoc(function) or ""
    summary = text.partition("\n")[0]
    assert summary.endswith((".", "!", "?")), f"summary must be one line and a sentence: {summary!r}"
    assert not re.search(r"^\{\w+\}$", text, re.MULTILINE), "a shared block was not filled in: @doc is missing"
    found = sections(function)
    wanted = {"Returns", "Examples"} | ({"Parameters"} if inspect.signature(function).parameters else set())
    assert wanted <= set(found)
    assert ">>> " in found["Examples"]


@each_function
def test_every_parameter_is_documented(function):
    lines = re.findall(r"^(\S.*)$", sections(function).get("Parameters", ""), re.MULTILINE)
    assert [line for line in lines if " : " in line] == [], "types stand in the signature only"
    documented = [name.lstrip("*") for line in lines for name in re.split(r",\s*", line)]
    assert sorted(documented) == sorted(inspect.signature(function).parameters)
