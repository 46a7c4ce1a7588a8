from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from spacy_relx.engine.spec import ModelSpec

TERMINAL = 39


def random_llama(dtype: torch.dtype = torch.float64) -> Any:
    """A random Llama with grouped-query attention in double precision, as training takes it."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.6,
        bos_token_id=0,
        eos_token_id=TERMINAL,
        pad_token_id=TERMINAL,
    )
    model = LlamaForCausalLM(config).to(dtype).eval().requires_grad_(False)
    return SimpleNamespace(
        model=model,
        device=torch.device("cpu"),
        dtype=dtype,
        spec=ModelSpec("random-llama"),
        base_fingerprint="0" * 32,
        adapter_info={},
    )


@pytest.fixture
def loaded() -> Any:
    return random_llama()
