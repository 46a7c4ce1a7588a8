"""The scripts in `benchmarks/` as modules, and where the tiny model's settings are."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))


@pytest.fixture
def script() -> Callable[[str], Any]:
    """A script as a module, by its name."""
    return importlib.import_module


@pytest.fixture
def run_script(
    script: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, Any]]:
    """Run a script's `main` and return the result file that it wrote."""

    def run(name: str, *arguments: object) -> dict[str, Any]:
        out = tmp_path / f"{name}.json"
        script(name).main([*map(str, arguments), "--out", str(out)])
        written = json.loads(out.read_text(encoding="utf8"))
        assert json.loads(capsys.readouterr().out) == written
        return written

    return run
