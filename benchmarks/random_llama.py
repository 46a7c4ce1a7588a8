"""A Llama of an exact shape with random weights, built on the device, and prompts of random tokens for it.

What it answers means nothing; what it costs is what the trained model of that shape costs. No download, no spaCy.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import torch

from spacy_relx.engine.loading import LoadedModel
from spacy_relx.engine.spec import ModelSpec
from spacy_relx.engine.types import LabelIds, Prompt, Question

if TYPE_CHECKING:
    from collections.abc import Sequence

#: By name: the settings of `LlamaConfig`. Source of the first: config.json of meta-llama/Llama-3.2-3B-Instruct.
SHAPES: dict[str, dict[str, Any]] = {
    "Llama-3.2-3B": {
        "vocab_size": 128256,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    },
    "tiny": {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    },
}

#: The layers that the published adapter changes.
_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

#: Spread of the random weights, as in a model before training.
_SPREAD = 0.02


def build(
    shape: str, device: torch.device, dtype: torch.dtype, *, quantization: str = "nf4", rank: int = 64, seed: int = 0
) -> LoadedModel:
    """Build a model layer by layer, so that it is never in memory unquantised as a whole.

    Args:
        shape: One of `SHAPES`.
        device: Where.
        dtype: Number format of the computation.
        quantization: "nf4" or "none".
        rank: Of the LoRA adapter beside every matrix; 0 for none.
        seed: Of the weights.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(**SHAPES[shape])
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config)
    decoder = model.get_decoder()
    for name, layer in list(decoder.named_modules()):
        if isinstance(layer, torch.nn.Linear):
            parent, _, child = name.rpartition(".")
            setattr(decoder.get_submodule(parent), child, _matrix(layer, device, dtype, quantization))
    for module in decoder.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                setattr(module, name, _parameter(parameter, device, dtype))
    decoder.rotary_emb = type(decoder.rotary_emb)(config).to(device)
    model.lm_head.weight = decoder.embed_tokens.weight
    if rank:
        _adapt(model, device, dtype, rank)
    model.requires_grad_(False)
    return LoadedModel(
        model=model.eval(),
        tokenizer=None,  # type: ignore[arg-type]  # prompts are made of tokens
        spec=ModelSpec(f"{shape}, random weights", quantization=quantization),  # type: ignore[arg-type]
        device=device,
        dtype=dtype,
        fingerprint=f"random, seed {seed}",
        base_fingerprint=f"random, seed {seed}",
        adapter_info={"config": {"r": rank}, "merged": False} if rank else {},
    )


def _matrix(layer: Any, device: torch.device, dtype: torch.dtype, quantization: str) -> torch.nn.Module:
    weight = torch.empty(layer.out_features, layer.in_features, device=device, dtype=dtype).normal_(std=_SPREAD)
    if quantization == "none":
        plain = torch.nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        plain.weight = torch.nn.Parameter(weight, requires_grad=False)
        return plain
    import bitsandbytes as bnb

    small: torch.nn.Module = bnb.nn.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=False,
        compute_dtype=dtype,
        compress_statistics=True,
        quant_type=quantization,
        device="meta",
    )
    # The weight is quantised by being sent to a device.
    small.weight = bnb.nn.Params4bit(
        weight, requires_grad=False, compress_statistics=True, quant_type=quantization, module=small
    ).to(device)
    return small


def _parameter(parameter: Any, device: torch.device, dtype: torch.dtype) -> torch.nn.Parameter:
    value = torch.ones(parameter.shape, device=device, dtype=dtype)  # norms
    if parameter.ndim > 1:
        value.normal_(std=_SPREAD)
    return torch.nn.Parameter(value, requires_grad=False)


def _adapt(model: Any, device: torch.device, dtype: torch.dtype, rank: int) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=_TARGETS, init_lora_weights=False)
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(device, dtype)


def questions(
    n_documents: int, n_entities: int, n_tokens: Sequence[int], vocabulary: int, n_labels: int = 6, seed: int = 0
) -> tuple[list[list[Question]], LabelIds]:
    """Prompts of random tokens that share what prompts of text share.

    Args:
        n_documents: Documents of one sentence.
        n_entities: Entities of each; all ordered pairs are asked about.
        n_tokens: Tokens of the shared run, a sentence, a head, and a tail with what follows it.
        vocabulary: Size of the vocabulary.
        n_labels: Labels, of two to four tokens.
        seed: Of the tokens.

    Returns:
        The questions of each document, and the labels.
    """
    rng = random.Random(seed)

    def some(n: int) -> tuple[int, ...]:
        return tuple(rng.randrange(2, vocabulary) for _ in range(n))

    n_shared, n_sentence, n_head, n_tail = n_tokens
    firsts = rng.sample(range(2, vocabulary), n_labels)
    labels = LabelIds(tuple((first, *some(1 + i % 3)) for i, first in enumerate(firsts)), terminal=1)
    everything = tuple(range(n_labels))
    shared = some(n_shared)
    work = []
    for _ in range(n_documents):
        sentence = some(n_sentence)
        heads = [(rng.randrange(2, vocabulary), *some(n_head - 1)) for _ in range(n_entities)]
        tails = [(rng.randrange(2, vocabulary), *some(n_tail - 1)) for _ in range(n_entities)]
        work.append(
            [
                Question(Prompt(shared + sentence + heads[i] + tails[j], n_shared), everything)
                for i in range(n_entities)
                for j in range(n_entities)
                if i != j
            ]
        )
    return work, labels


def pooled(work: Sequence[Sequence[Question]], tokens: int) -> list[list[Question]]:
    """Documents collected into calls of about so many tokens, as the component collects them."""
    from spacy_relx.engine.packing import count_tokens

    calls: list[list[Question]] = []
    pool: list[Question] = []
    n_tokens = 0
    for document in work:
        pool += document
        n_tokens += count_tokens([question.prompt for question in document])
        if n_tokens >= tokens:
            calls.append(pool)
            pool, n_tokens = [], 0
    return [*calls, pool] if pool else calls
