"""Fixtures shared by the tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def embedded_base() -> Path:
    """The folder of the embedded base model, fetched once into the user's cache."""
    from spacy_relx.fetch import fetch_embedded_base

    return fetch_embedded_base()
