"""The scripts in `benchmarks/` as modules, and where the tiny model's settings are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))


@pytest.fixture
def run_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Run a script's `main` and return the result file that it wrote."""
    import importlib
    import json

    def run(name: str, *arguments: object) -> dict[str, Any]:
        out = tmp_path / f"{name}.json"
        importlib.import_module(name).main([*map(str, arguments), "--out", str(out)])
        written = json.loads(out.read_text(encoding="utf8"))
        assert json.loads(capsys.readouterr().out) == written
        return written

    return run
