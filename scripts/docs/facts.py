"""What the documentation says of the packaged adapter, label sets and data sets: read from the package."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING

from markdown_tables import cell, table

import spacy_relx
from spacy_relx.data import DATASETS
from spacy_relx.engine.spec import EMBEDDED_ADAPTER
from spacy_relx.schema import bundled_schemas, make_schema

if TYPE_CHECKING:
    from collections.abc import Callable


def adapter_name() -> str:
    """The name of the packaged adapter that is the default."""
    return f"`{EMBEDDED_ADAPTER}`"


def card_section(title: str) -> str:
    """A section of the default adapter's card, without its heading.

    Raises:
        LookupError: If the card has no such section.
    """
    card = files(spacy_relx).joinpath("adapters", EMBEDDED_ADAPTER, "README.md").read_text("utf8")
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", card, re.MULTILINE | re.DOTALL)
    if found is None:
        raise LookupError(f"The card of {EMBEDDED_ADAPTER} has no section {title!r}, which the documentation shows.")
    return found[1].strip()


def label_sets() -> str:
    """The packaged label sets."""
    rows = []
    for name in bundled_schemas():
        schema = make_schema(name)
        about = schema.about
        complete = "yes" if about.complete else f"no: {cell(about.note or 'see its file')}"
        rows.append((f"`{name}`", str(len(schema)), cell(about.title or ""), cell(about.licence or ""), complete))
    return table(("name", "labels", "what it is", "licence", "exactly the published labels"), rows)


def data_sets() -> str:
    """The data sets that there are readers for."""
    rows = [(f"`{name}`", cell(data.title), cell(data.licence)) for name, data in sorted(DATASETS.items())]
    return table(("name", "data set", "licence"), rows)


FACTS: dict[str, Callable[[], str]] = {
    "adapter-name": adapter_name,
    "adapter-in-short": lambda: card_section("In short"),
    "adapter-results": lambda: card_section("Results"),
    "adapter-limits": lambda: card_section("Limits"),
    "label-sets": label_sets,
    "data-sets": data_sets,
}
