"""The tables of docs/benchmarks.md: each is on the page, and says what the result files say."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "docs"))

import benchmark_tables  # noqa: E402


def spread(median: float) -> dict[str, float]:
    return {"n": 3, "median": median, "min": median / 2, "max": median * 2}


def pack(pairs_per_second: float, **changes: Any) -> dict[str, Any]:
    return {
        "documents": 2,
        "pairs": 264,
        "pairs_per_second": spread(pairs_per_second),
        "documents_per_second": spread(pairs_per_second / 132),
        "tokens": {"computed_a_pair": 12.34},
        "limit": {"share_reached": spread(0.25)},
        "rivals": {},
        "time": {"shares": {"adapter": 0.75, "attention": 0.25}},
        "memory": {"process_peak_mib": 100.0, "cuda_peak_allocated_mib": 2801.2},
        **changes,
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the committed results."""
    monkeypatch.setattr(benchmark_tables, "FOLDER", tmp_path)
    return tmp_path


def write_gpu(folder: Path, packs: dict[str, Any], not_run: dict[str, str] | None = None) -> None:
    run = {
        "command": "python benchmarks/gpu.py",
        "date": "2026-01-02T03:04:05+00:00",
        "commit": "0123456789abcdef",
        "machine": {"gpu": "a GPU"},
        "threads": 2,
        "default_pack": 8192,
        "packs": packs,
        "not_run": not_run or {},
    }
    (folder / "gpu.json").write_text(json.dumps(run), "utf8")


def test_the_page_has_every_table() -> None:
    marks = re.findall(r"<!-- generated: (benchmark-[\w-]+) -->", (ROOT / "docs" / "benchmarks.md").read_text("utf8"))
    assert sorted(marks) == sorted(benchmark_tables.TABLES)


@pytest.mark.parametrize("name", benchmark_tables.TABLES)
def test_tables_of_the_committed_results(name: str) -> None:
    assert benchmark_tables.TABLES[name]().strip()


@pytest.mark.parametrize("name", benchmark_tables.TABLES)
def test_tables_without_results(name: str, folder: Path) -> None:
    assert benchmark_tables.TABLES[name]()


def test_gpu_by_hand(folder: Path) -> None:
    rival = {
        "about": "the loop",
        "pairs": 8,
        "pairs_per_second": spread(2.5),
        "ours_is_times_as_fast": spread(1600.0),
    }
    packs = {"8192": pack(4000.0, rivals={"card": rival}), "16384": pack(4400.0), "2048": pack(1500.0)}
    write_gpu(folder, packs, {"vllm": "not asked for"})
    text = benchmark_tables.gpu()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    # By size, and not in the order in which they were measured.
    assert [row.split(" | ")[0] for row in rows[2:5]] == ["| 2,048", "| 8,192 (default)", "| 16,384"]
    assert rows[2] == "| 2,048 | 1,500 (750.0 to 3,000) | 12.3 | 25% (12% to 50%) | 2,801 |"
    assert rows[-1] == "| `card`: the loop | 2.5 (1.2 to 5.0) |  | 1,600 (800.0 to 3,200) |"
    assert "At packs of 8,192 tokens, 264 pairs of 2 documents by the engine, 8 by `card`, in turn:" in text
    assert text.count("Where the time goes: adapter 75%, attention 25%.") == 1
    assert "Not run: vllm. not asked for" in text
    assert "Machine: gpu a GPU; 2 threads." in text
    assert "`gpu.json`, 2026-01-02, commit `01234567`" in text
    assert "python benchmarks/gpu.py" in text


def test_gpu_on_a_processor(folder: Path) -> None:
    """A processor has no memory of a GPU."""
    write_gpu(folder, {"8192": pack(40.0, memory={"process_peak_mib": 100.0})})
    assert "| 8,192 (default) | 40.0 (20.0 to 80.0) | 12.3 | 25% (12% to 50%) |  |" in benchmark_tables.gpu()


def test_others_leave_out_what_has_a_table(folder: Path) -> None:
    write_gpu(folder, {"8192": pack(4000.0)})
    (folder / "growth.json").write_text(json.dumps({"entities": 3}), "utf8")
    text = benchmark_tables.others()
    assert "growth.json" in text
    assert "| `entities` | 3 |" in text
    assert "gpu.json" not in text
