"""What people write with transformers alone, on the same loaded model: the model card's loop, and batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spacy_relx.engine.loading import LoadedModel
    from spacy_relx.engine.types import LabelIds, Prompt, Question

#: The rivals that need nothing but transformers, and what they are.
NAMES = {
    "card": "the model card's loop: one prompt at a time, greedy",
    "batched": "batches of prompts padded on the left, greedy",
}


def generate(loaded: LoadedModel, prompts: Sequence[Prompt], new_tokens: int, batch: int) -> list[list[int]]:
    """Continue prompts greedily in batches that are padded on the left.

    Args:
        loaded: The model.
        prompts: The prompts.
        new_tokens: Most tokens of an answer.
        batch: Prompts at a time; 1 is the model card's loop.

    Returns:
        The new tokens of each prompt.
    """
    import torch

    model: Any = loaded.model
    pad = getattr(loaded.tokenizer, "pad_token_id", None) or 0
    settings = {"max_new_tokens": new_tokens, "do_sample": False, "pad_token_id": pad}
    answers = []
    with torch.inference_mode():
        for start in range(0, len(prompts), batch):
            part = [prompt.ids for prompt in prompts[start : start + batch]]
            width = max(map(len, part))
            ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in part], device=loaded.device)
            mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in part], device=loaded.device)
            output = model.generate(input_ids=ids, attention_mask=mask, **settings)
            answers += output[:, width:].tolist()
    return answers


def answer_tokens(labels: LabelIds) -> int:
    """Tokens of the longest label, and of the end of an answer."""
    return max(map(len, labels.sequences)) + 1


def some_pairs(calls: Sequence[Sequence[Question]], n_pairs: int) -> list[Prompt]:
    """Some prompts for rivals that are too slow for all: from the documents of middle size on, whole ones first."""
    ordered = sorted((call for call in calls if call), key=len)
    prompts = [question.prompt for call in ordered[len(ordered) // 2 :] for question in call]
    return prompts[:n_pairs]
