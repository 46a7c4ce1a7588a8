"""The published sizes of the data sets, where their own files are on this machine."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_datasets.py"
DATA = os.environ.get("SPACY_RELX_DATA")


@pytest.mark.skipif(not DATA, reason="SPACY_RELX_DATA names no folder with the data sets' own files")
def test_the_published_sizes() -> None:
    spec = importlib.util.spec_from_file_location("check_datasets", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_datasets"] = module
    spec.loader.exec_module(module)
    found = list(module.checks(Path(DATA or "")))
    assert found
    assert [check for check in found if not check.is_met] == []
