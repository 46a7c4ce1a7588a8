"""The same text, model and settings give the same relations: in one process, in another, in any company and order."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import MENTIONS, pipeline, rows

pytestmark = pytest.mark.model
TESTS = Path(__file__).parent
WORDS = ["met", "left", "near", "and", "for", "the", "sold", "old", "again", "with"]


def texts(n: int = 12) -> list[str]:
    rng = random.Random(0)
    made = []
    for _ in range(n):
        words = rng.choices([*MENTIONS, *WORDS], k=rng.randint(4, 14))
        made.append(" ".join(words) + ".")
    return made


def answers(nlp: Any) -> list[Any]:
    return [rows(doc) for doc in nlp.pipe(texts())]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_again_in_any_order_and_company(tiny_llama: Path, dtype: str) -> None:
    model = {"@architectures": "spacy-relx.CausalLM.v1", "base": str(tiny_llama), "dtype": dtype, "device": "cpu"}
    nlp = pipeline(model=model)
    first = answers(nlp)
    assert any(first)
    assert answers(nlp) == first
    order = list(range(len(first)))
    random.Random(1).shuffle(order)
    made = texts()
    assert [rows(nlp(made[i])) for i in order] == [first[i] for i in order]
    assert [rows(doc) for doc in nlp.pipe((made[i] for i in order), batch_size=3)] == [first[i] for i in order]
    assert answers(pipeline(model=model)) == first


def test_another_process_says_the_same(tiny_llama: Path) -> None:
    """Also where strings have other hashes, so that sets and dictionaries of them are in another order."""
    here = json.dumps(answers(pipeline(tiny_llama)))
    code = (
        f"import json, sys; sys.path.insert(0, {str(TESTS)!r})\n"
        "from test_determinism import answers\nfrom tiny import pipeline\n"
        f"print(json.dumps(answers(pipeline({str(tiny_llama)!r}))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip().splitlines()[-1] == here
