"""The engine on a CUDA device: `make test-gpu` runs these where there is one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from training.conftest import random_llama

from spacy_relx.engine.packed import PackedEngine
from spacy_relx.engine.reference import ReferenceEngine
from spacy_relx.engine.types import LabelIds, Prompt, Question
from spacy_relx.training.encode import TrainRow
from spacy_relx.training.gradient import GradientStep
from spacy_relx.training.lora import LoraWeights
from spacy_relx.training.lora_settings import LoraSettings

from .compare import assert_exact
from .conftest import TERMINAL, tiny_llama

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device; `make test-gpu` on a machine with one"),
]

LABELS = LabelIds(((4,), (5, 6), (5, 4), (6, 6, 6)), TERMINAL)
EVERYTHING = (0, 1, 2, 3)
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


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


def test_documents_of_every_size_on_the_gpu() -> None:
    """Packs of several blocks and sizes, calls of several packs, labels of which one begins another."""
    generator = torch.Generator().manual_seed(0)

    def some(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, 30, (n,), generator=generator).tolist())

    shared = some(20)
    texts = [some(5 + 13 * i) for i in range(8)]
    prompts = [Prompt((*shared, *texts[i % 8], *some(i % 7 + 1)), 20) for i in range(80)]
    work = [Question(prompt, EVERYTHING) for prompt in sorted(prompts, key=lambda prompt: prompt.ids)]
    loaded = on_gpu(tiny_llama(), torch.float32)
    oracle = ReferenceEngine(loaded).rank(work, LABELS, top_k=4)
    for budget in (200, 8192):
        assert_exact(work, PackedEngine(loaded, budget).rank(work, LABELS, top_k=4), oracle, 4)


def test_an_adapter_beside_the_matrices_on_the_gpu() -> None:
    loaded = tiny_llama()
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, target_modules=LAYERS), loaded.model)
    loaded = on_gpu(loaded, torch.float32)
    loaded.model.eval()
    oracle = ReferenceEngine(loaded).rank(asked(64), LABELS, top_k=4)
    assert_exact(asked(64), PackedEngine(loaded).rank(asked(64), LABELS, top_k=4), oracle, 4)


def test_gradients_on_the_gpu_are_the_processor_s() -> None:
    rows = [TrainRow((1, 2, 3, i % 5, i % 3), (4, 5 + i % 2, TERMINAL)) for i in range(40)]
    found = []
    for device in ("cpu", "cuda"):
        loaded = random_llama(torch.float32)
        loaded.model.to(device)
        loaded.device = torch.device(device)
        weights = LoraWeights(loaded, LoraSettings(4, 8))
        for name, master in weights.masters.items():
            if "lora_B" in name:  # zero at first, where A would have no gradient
                master.copy_(torch.linspace(-0.3, 0.3, master.numel()).view_as(master))
        weights.write()
        step = GradientStep(loaded, weights, 64)
        found.append((step.add(rows), {name: master.grad.cpu() for name, master in weights.masters.items()}))
    (ours, gradients), (theirs, expected) = found
    assert ours == pytest.approx(theirs, rel=1e-4)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-3 * float(gradient.abs().max()))


def test_free_decoding_on_the_gpu() -> None:
    loaded = on_gpu(tiny_llama(), torch.float32)
    prompts = [question.prompt for question in asked(16)]
    stop = frozenset({TERMINAL})
    got = PackedEngine(loaded).decode(prompts, stop_ids=stop)
    assert [a.ids for a in got] == [a.ids for a in ReferenceEngine(loaded).decode(prompts, stop_ids=stop)]
