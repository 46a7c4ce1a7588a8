"""The benchmark of training, at a tiny size."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from spacy_relx.training.rows import RowGroup, write_rows

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("accelerate", reason="transformers' Trainer, the rival, needs accelerate")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("one_thread")
def test_it_measures_both(tiny_llama: Path, tmp_path: Path, script: Any) -> None:
    system = (("system", "You are a relation extraction system. Choose one of works_for and no_relation. " * 4),)
    groups = [
        RowGroup(
            system, tuple((f"Sentence: {i}\nEntity 1: {j}\nEntity 2: x\nRelation:", "works_for") for j in range(4))
        )
        for i in range(3)
    ]
    write_rows(tmp_path / "rows.jsonl", groups)
    out = tmp_path / "result.json"
    arguments = [str(tmp_path / "rows.jsonl"), "--out", str(out), "--base", str(tiny_llama), "--dtype", "float32"]
    script("training_speed").main([*arguments, "--rank", "2", "--rounds", "2", "--batch-rows", "4"])
    result = json.loads(out.read_text())
    assert result["rows"]["n_rows"] == 12
    assert result["rows"]["n_steps"] == 3
    assert result["rows"]["batch"] == 4
    # Each step has a sentence of its own, so the system text is computed three times and not twelve.
    assert result["rows"]["tokens_computed"] < result["rows"]["tokens"] / 2
    assert result["packed_over_trainer"]["n"] == 2
    assert set(result["rows_per_second"]) == {"packed", "trainer"}
