"""The short way through a stock Llama against the model's own forward."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor
from transformers import MistralConfig, MistralForCausalLM

from spacy_relx.engine import decoder, packing, prefix_tree
from spacy_relx.engine.attention import KeyValueStore, PackAttention, install, own_forward
from spacy_relx.engine.packed import PackedEngine
from spacy_relx.engine.reference import ReferenceEngine
from spacy_relx.engine.types import LabelIds, Prompt, Question

from .compare import assert_exact
from .conftest import TERMINAL, VOCABULARY, tiny_llama

SHARED = (0, 5, 7)
TAILS = [(9, 3), (9, 3, 4, 4), (9, 8, 1), (2,), (2, 6, 6, 6, 6, 6), (11, 30, 1)]
LABELS = LabelIds(((4,), (5, 6), (5, 4)), TERMINAL)
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
KINDS: dict[str, dict[str, Any]] = {
    "grouped heads": {},
    "one key-value head": {"num_key_value_heads": 1},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "heads of their own size": {"head_dim": 24},
    "llama3 positions": {"rope_parameters": LLAMA3_ROPE},
    "tied": {"tie_word_embeddings": True},
}


def both_ways(model: Any) -> tuple[Tensor, Tensor]:
    """The hidden states of a pack behind a shared run, each way with keys and values of its own."""
    install(model)
    found = []
    for way in (decoder.forward, own_forward):
        run: KeyValueStore | None = None
        hidden = torch.empty(0)
        for prompts, start in ([SHARED], 0), (TAILS, len(SHARED)):
            tree = prefix_tree.build(prompts)
            store = KeyValueStore(64, run)
            attention = PackAttention(packing.plan_tree(tree), torch.device("cpu"), store)
            with torch.inference_mode():
                ids, positions = (torch.from_numpy(np.asarray(a)) for a in (tree.ids, tree.depth + start))
                hidden = way(model, ids, positions, attention)
            store.advance(len(tree))
            run = store
        found.append(hidden)
    return found[0], found[1]


def random_biases(model: Any) -> Any:
    """Biases are zero at first, and so are the matrices B of an adapter: a lost one would not be seen."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_are_those_of_the_models_own_forward(
    kind: str, padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "_n_rows", lambda n_nodes, _: n_nodes + padding)
    model = random_biases(tiny_llama(**KINDS[kind]).model)
    assert decoder.is_stock(model)
    short, own = both_ways(model)
    # Products of other shapes add up in another order: one number in 480 is off by 2e-5.
    torch.testing.assert_close(short, own, rtol=1e-4, atol=3e-5 if padding else 1e-5)


def test_lora_beside_the_matrices_takes_part() -> None:
    model = tiny_llama().model
    bare, _ = both_ways(model)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=8, target_modules=targets), model)
    random_biases(model).eval()
    assert decoder.is_stock(model)
    short, own = both_ways(model)
    torch.testing.assert_close(short, own, rtol=1e-4, atol=1e-5)
    assert (short - bare).abs().max() > 0.01


def test_it_is_as_exact_in_half_precision() -> None:
    exact, _ = both_ways(tiny_llama().model)
    short, own = both_ways(tiny_llama().model.to(torch.bfloat16))
    errors = [(way.float() - exact).square().mean().sqrt().item() for way in (short, own)]
    assert errors[0] <= 1.2 * errors[1]


def hooked() -> Any:
    model = deepcopy(tiny_llama().model)
    model.model.layers[1].mlp.register_forward_hook(lambda module, inputs, output: output * 0.5)
    return model


def patched() -> Any:
    model = deepcopy(tiny_llama().model)
    norm = model.model.layers[0].input_layernorm
    norm.forward = lambda hidden: hidden
    return model


def mistral() -> Any:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.6,
        max_position_embeddings=512,
    )
    return MistralForCausalLM(config).eval().requires_grad_(False)


OTHERS: dict[str, Any] = {
    "another activation": lambda: tiny_llama(hidden_act="gelu").model,
    "a hook": hooked,
    "a part's own forward": patched,
    "another architecture": mistral,
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_not_stock_goes_the_models_own_way(kind: str) -> None:
    loaded = tiny_llama()
    loaded.model = OTHERS[kind]()
    assert not decoder.is_stock(loaded.model)
    asked = [Question(Prompt((*SHARED, *tail), len(SHARED)), (0, 1, 2)) for tail in TAILS]
    expected = ReferenceEngine(loaded).rank(asked, LABELS, top_k=3)
    assert_exact(asked, PackedEngine(loaded).rank(asked, LABELS, top_k=3), expected, 3)
