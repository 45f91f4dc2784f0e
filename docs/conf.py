"""Sphinx configuration: `sphinx-build -W docs docs/_build/html`, without a network."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent

project = "spanmf"
author = "spanmf developers"
copyright = "2026, spanmf developers"
release = importlib.metadata.version("spanmf")
html_title = f"spanmf {release}"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
if os.environ.get("SPANMF_DOCS_ONLINE"):  # links to other projects need their inventories, so a network
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        name: (url, None)
        for name, url in {
            "anndata": "https://anndata.readthedocs.io/en/stable/",
            "matplotlib": "https://matplotlib.org/stable/",
            "numpy": "https://numpy.org/doc/stable/",
            "pandas": "https://pandas.pydata.org/docs/",
            "python": "https://docs.python.org/3",
            "scanpy": "https://scanpy.readthedocs.io/en/stable/",
            "scipy": "https://docs.scipy.org/doc/scipy/",
            "squidpy": "https://squidpy.readthedocs.io/en/stable/",
        }.items()
    }

exclude_patterns = ["_build", "**/.ipynb_checkpoints"]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb"}  # .rst first: autosummary writes it
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# A link to one of our own names that leads nowhere is an error; other projects' names are links only when online.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!spanmf\.).*")]

autosummary_generate = True
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_typehints_description_target = "documented"
python_use_unqualified_type_names = True
napoleon_google_docstring = False
napoleon_custom_sections = ["Returns"]  # prose and a list of slots, not a type
templates_path = ["_templates"]

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_show_sourcelink = False
html_theme_options = {"show_navbar_depth": 1, "use_download_button": False}


def copy_tutorials() -> None:
    """The tutorials lie beside the docs; Sphinx reads only below its own folder."""
    shutil.rmtree(HERE / "tutorials", ignore_errors=True)
    shutil.copytree(ROOT / "tutorials", HERE / "tutorials", ignore=shutil.ignore_patterns(".*", "__pycache__"))


def write_cli_help() -> None:
    """What `spanmf --help` prints, and the help of each command, for cli.md."""
    folder = HERE / "generated"
    folder.mkdir(exist_ok=True)
    for command in ("", "demo", "hsnmf", "joint", "stl-nmf", "sweep", "metrics", "report"):
        words = [sys.executable, "-m", "spanmf", *command.split(), "--help"]
        text = subprocess.run(
            words, check=True, capture_output=True, text=True, env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
        )
        (folder / f"help_{command or 'spanmf'}.txt").write_text(text.stdout)


def setup(app: object) -> None:
    """Make what the pages include."""
    copy_tutorials()
    write_cli_help()
