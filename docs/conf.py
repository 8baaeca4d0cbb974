"""Sphinx's configuration; `python3 dev.py docs` builds the documentation."""

import re
import sys
import tomllib
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from generated import as_restructured_text, commands_reference, settings_reference, suites_reference

ROOT = Path(__file__).parents[1]

project = "prism_wsgi"
author = "the authors of prism_wsgi"
version = release = version_of("prism_wsgi")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["README.md"]
html_theme = "furo"
html_title = "prism_wsgi"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
pygments_style = "friendly"

myst_heading_anchors = 3  # so that links to headings are checked

default_role = "code"  # docstrings mark code as Markdown does
autodoc_default_options = {"members": True, "undoc-members": True, "member-order": "bysource"}
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True

# Types of other projects, whose documentation would have to be fetched to link to it.
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(abc|alembic|bottle|collections|datetime|decimal|enum|flask|hypothesis|opentelemetry|os|pathlib"
        r"|prometheus_client|pytest|redis|sqlalchemy|threading|typing|uuid|webob|wsgiref)\b.*",
    ),
    (r"py:class", r".*\._\w+T"),  # type variables
    (r"py:class", r"prism_wsgi\.setting_types\..*"),  # the settings, as types
]


def setup(app: Any) -> None:
    """Fill in what is generated; Sphinx calls this."""
    app.connect("source-read", _fill_in)
    app.connect("autodoc-process-docstring", _convert)
    app.connect("autodoc-process-signature", _name_defaults)


def _fill_in(app: Any, page: str, source: list[str]) -> None:
    if page == "settings":
        source[0] = source[0].replace("<!-- settings -->", settings_reference())
    elif page == "commands":
        source[0] = source[0].replace("<!-- commands -->", commands_reference())
    elif page == "compatibility":
        declared = tomllib.loads((ROOT / "tests" / "peers" / "suites.toml").read_text())
        source[0] = source[0].replace("<!-- suites -->", suites_reference(declared["suites"]))


def _convert(app: Any, what: str, name: str, documented: object, options: object, lines: list[str]) -> None:
    lines[:] = as_restructured_text(lines)


def _name_defaults(
    app: Any, what: str, name: str, documented: object, options: object, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    # Sphinx cannot read a signature with the repr of a function in it.
    return signature and re.sub(r"<function (\w+)>", r"\1", signature), returned
