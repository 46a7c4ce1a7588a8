from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 40
TERMINAL = 39


def tiny_llama(**changes: Any) -> Any:
    """A random Llama with rotary positions and grouped-query attention, as the engine wants it."""
    torch.manual_seed(0)
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        # Large enough that the answers of a random model are not all alike.
        "initializer_range": 0.6,
        "bos_token_id": 0,
        "eos_token_id": TERMINAL,
        "pad_token_id": TERMINAL,
    }
    config = LlamaConfig(**{**settings, **changes})
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    return SimpleNamespace(
        model=model,
        device=torch.device("cpu"),
        dtype=torch.float32,
        spec=SimpleNamespace(base="tiny-random-llama"),
        adapter_info={},
    )


@pytest.fixture(scope="session")
def tiny() -> Any:
    return tiny_llama()
