"""The engine on a CUDA device: `make test-gpu` runs these where there is one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from spacy_relx.engine.packed import PackedEngine
from spacy_relx.engine.reference import ReferenceEngine
from spacy_relx.engine.types import LabelIds, Prompt, Question

from .compare import assert_exact
from .conftest import TERMINAL, tiny_llama

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device; `make test-gpu` on a machine with one"),
]

LABELS = LabelIds(((4,), (5, 6), (5, 4), (6, 6, 6)), TERMINAL)
EVERYTHING = (0, 1, 2, 3)


def asked(n: int) -> list[Question]:
    return [Question(Prompt((0, 1, 2, 3, 1, 2, i % 4, i // 4 % 4, i // 16), 4), EVERYTHING) for i in range(n)]


def on_gpu(loaded: Any, dtype: torch.dtype) -> Any:
    moved = copy.deepcopy(loaded)
    moved.model.to("cuda", dtype)
    moved.device, moved.dtype = torch.device("cuda"), dtype
    return moved


@pytest.mark.parametrize("scoring", ["trie", "sequence"])
def test_float32_on_the_gpu_is_the_reference_s(scoring: Any) -> None:
    loaded = on_gpu(tiny_llama(), torch.float32)
    oracle = ReferenceEngine(loaded).rank(asked(64), LABELS, top_k=4, scoring=scoring)
    for budget in (20, 4096):
        got = PackedEngine(loaded, budget).rank(asked(64), LABELS, top_k=4, scoring=scoring)
        assert_exact(asked(64), got, oracle, 4)


def test_the_gpu_and_the_processor_agree() -> None:
    loaded = tiny_llama()
    oracle = ReferenceEngine(loaded).rank(asked(64), LABELS, top_k=4)
    assert_exact(asked(64), PackedEngine(on_gpu(loaded, torch.float32)).rank(asked(64), LABELS, top_k=4), oracle, 4)


def test_bfloat16_on_the_gpu_is_close() -> None:
    loaded = tiny_llama(initializer_range=0.1)
    oracle = ReferenceEngine(loaded).rank(asked(64), LABELS, top_k=4)
    got = PackedEngine(on_gpu(loaded, torch.bfloat16)).rank(asked(64), LABELS, top_k=4)
    for a, b in zip(got, oracle):
        true = {score.label: score.prob for score in b.scores}
        assert all(abs(score.prob - true[score.label]) < 0.05 for score in a.scores)


def test_free_decoding_on_the_gpu() -> None:
    loaded = on_gpu(tiny_llama(), torch.float32)
    prompts = [question.prompt for question in asked(16)]
    stop = frozenset({TERMINAL})
    got = PackedEngine(loaded).decode(prompts, stop_ids=stop)
    assert [a.ids for a in got] == [a.ids for a in ReferenceEngine(loaded).decode(prompts, stop_ids=stop)]
