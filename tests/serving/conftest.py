from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tiny import load_tokenizer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def tokenizer(embedded_base: Path) -> Any:
    return load_tokenizer(embedded_base)
