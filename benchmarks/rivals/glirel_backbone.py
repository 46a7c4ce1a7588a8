"""GLiREL's backbone, DeBERTa-v3-large, on the sentences: its exact shape with random weights, which cost the same.

GLiREL reads the label names and the sentence together, once a sentence, and scores all pairs with small layers on top,
which are left out here in its favour.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ABOUT = "the backbone of GLiREL-large (DeBERTa-v3-large, random weights): labels and sentence once, nothing on top"
REQUIREMENTS: list[str] = []

#: Source: config.json of microsoft/deberta-v3-large.
CONFIG = {
    "vocab_size": 128100,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 0,
    "relative_attention": True,
    "max_relative_positions": -1,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "layer_norm_eps": 1e-7,
}

#: GLiREL puts a marker before each label and one after the last.
_MARKERS_A_LABEL = 1


@dataclass
class Rival:
    """The encoder and its inputs."""

    encoder: Any
    inputs: list[tuple[Any, Any]]
    n_units: int
    unit: str = "documents"
    facts: dict[str, Any] = field(default_factory=dict)

    def run(self) -> None:
        """Encode every sentence."""
        import torch

        with torch.inference_mode():
            for ids, mask in self.inputs:
                self.encoder(input_ids=ids, attention_mask=mask)
        if ids.device.type == "cuda":
            torch.cuda.synchronize()


def lengths(task: dict[str, Any]) -> list[int]:
    """Tokens of each sentence with the labels before it."""
    n_labels = sum(task["label_tokens"]) + _MARKERS_A_LABEL * (len(task["label_tokens"]) + 1)
    return [n_tokens + n_labels for n_tokens in task["document_tokens"]]


def prepare(task: dict[str, Any]) -> Rival:
    """Build the encoder; `task["config"]` may make it smaller, for a test."""
    import torch
    import transformers
    from transformers import DebertaV2Config, DebertaV2Model

    torch.set_num_threads(task["threads"])
    torch.manual_seed(0)
    config = DebertaV2Config(**{**CONFIG, **task.get("config", {})})
    device = torch.device(task["device"])
    encoder = DebertaV2Model(config).to(device, getattr(torch, task["dtype"])).eval()
    sizes, inputs = lengths(task), []
    for start in range(0, len(sizes), task["batch"]):
        part = sizes[start : start + task["batch"]]
        ids = torch.randint(1000, config.vocab_size, (len(part), max(part)), device=device)
        mask = (torch.arange(max(part), device=device)[None] < torch.tensor(part, device=device)[:, None]).long()
        inputs.append((ids, mask))
    return Rival(
        encoder,
        inputs,
        len(sizes),
        facts={
            "about": ABOUT,
            "weights": "random",
            "batch": task["batch"],
            "tokens_a_sentence": round(sum(sizes) / len(sizes), 1),
            "versions": {"transformers": transformers.__version__},
        },
    )
