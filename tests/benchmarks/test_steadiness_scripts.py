"""The benchmarks of attacks and of number formats, at a tiny size."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.model, pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]


def test_injection(tiny_llama: Path, tmp_path: Path, script: Any) -> None:
    out = tmp_path / "injection.json"
    model = ["--model", "spacy-relx.CausalLM.v1", "--base", str(tiny_llama)]
    script("injection").main([*model, "--pairs", "2", "--out", str(out)])
    attacks = json.loads(out.read_text())["attacks"]
    assert attacks["control: zero-width spaces in a name"] == {"changed": 0.0, "wanted": None}
    assert all(0 <= row["changed"] <= 1 for row in attacks.values())
    assert {name for name, row in attacks.items() if row["wanted"] is None} == {
        name for name in attacks if name.startswith("control")
    }


def test_determinism(tiny_llama: Path, tmp_path: Path, script: Any) -> None:
    out = tmp_path / "determinism.json"
    answers = tmp_path / "answers.json"
    arguments = ["--base", str(tiny_llama), "--pairs", "6", "--runs", "float32", "bfloat16", "--out", str(out)]
    script("determinism").main([*arguments, "--answers", str(answers)])
    result = json.loads(out.read_text())
    assert result["pairs"] == 6
    assert result["runs"]["float32"]["same_again"]
    assert set(result["changes"]["float32 and bfloat16"]) >= {"changed_labels", "largest_difference_of_a_score"}
    found = json.loads(answers.read_text())
    assert {name: len(pairs) for name, pairs in found.items()} == {"float32": 6, "bfloat16": 6}
    assert all(isinstance(label, int) and 0 <= score <= 1 for pairs in found.values() for label, score in pairs)
