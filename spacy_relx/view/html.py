"""HTML as a value: how it is made, shown in a notebook, and written."""

from __future__ import annotations

from functools import cache
from html import escape
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from jinja2 import Environment, Template


class Html(str):
    """Markup that a notebook shows by itself when it is the value of a cell."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return a line instead of the markup, which would fill the screen of whoever typed the call."""
        return f"<{type(self).__name__}: {len(self):,} characters>"

    def _repr_html_(self) -> str:
        return self.for_notebook()

    def for_notebook(self) -> str:
        """Return the markup to put into the page of a notebook."""
        return str(self)


class Page(Html):
    """A whole page with scripts and styles of its own, which a notebook shows in a frame."""

    __slots__ = ()

    def for_notebook(self) -> str:
        """Return a frame with the page in it; the page cannot reach the notebook around it."""
        style = "width: 100%; height: 680px; border: 1px solid #8884; border-radius: 8px"
        return f'<iframe title="Relations" sandbox="allow-scripts" style="{style}" srcdoc="{escape(self)}"></iframe>'


_Html = TypeVar("_Html", bound=Html)


def show(html: _Html) -> _Html:
    """Show the markup at once in the notebook that runs this, and return it."""
    ipython = import_module("IPython.display")
    ipython.display(ipython.HTML(html.for_notebook()))
    return html


def write_page(html: str, path: str | Path) -> Path:
    """Write a page, with the folders that lead to it, and return its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The id of a document may hold half of a surrogate pair, which no file can.
    path.write_text(html, encoding="utf8", errors="replace")
    return path


def resource(name: str) -> str:
    """Return the text of a file of this package."""
    return files(__package__).joinpath(name).read_text("utf8")


@cache
def template(name: str) -> Template:
    """Return a template of this package; what is put into it is escaped."""
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(resource(name))
