"""What the shell offers for a value; each function takes what was typed so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def schemas(incomplete: str) -> list[str]:
    """Return names of packaged label sets."""
    from spacy_relx.schema import bundled_schemas

    return _beginning(incomplete, bundled_schemas())


def presets(incomplete: str) -> list[str]:
    """Return names of models."""
    return _beginning(incomplete, ("SmolLM2", "Llama32GenTune"))


def datasets(incomplete: str) -> list[str]:
    """Return names of data sets."""
    from spacy_relx.data import DATASETS

    return _beginning(incomplete, DATASETS)


def formats(incomplete: str) -> list[str]:
    """Return names of formats of an export."""
    from spacy_relx.export import FORMATS

    return _beginning(incomplete, FORMATS)


def properties(incomplete: str) -> list[str]:
    """Return names of label sets with properties."""
    from spacy_relx.export.properties import mapped_schemas

    return _beginning(incomplete, mapped_schemas())


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
