"""The reference engine: one prompt, one plain forward pass at a time. Slow, obvious, and the oracle of the packed one.

It shares nothing with the packed engine but the output matrix: no tree, no trie, no kept keys, stock attention.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import torch

from spacy_relx.engine.output import OutputHead
from spacy_relx.engine.types import (
    DEFAULT_NEW_TOKENS,
    FreeAnswer,
    LabelIds,
    LabelScore,
    Prompt,
    Question,
    Ranking,
    Scoring,
    TokenIds,
    Work,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spacy_relx.engine.loading import LoadedModel


class ReferenceEngine:
    """Answers prompts one by one; same methods and results as the packed engine.

    Args:
        loaded: The model to ask.

    Attributes:
        work: Counters of what has been computed.
        n_weight_changes: How often the weights were changed since they were loaded.
        lock: Held while the model computes.
        max_pack_tokens: 1: prompts are never together, so nothing is gained by collecting them.
    """

    max_pack_tokens = 1

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.device = loaded.device
        self.work = Work()
        self.n_weight_changes = 0
        self._head = OutputHead(loaded.model)
        self.lock = threading.RLock()

    def weights_changed(self) -> None:
        """Forget what was read from the weights; to be called after any change of them."""
        with self.lock:
            self.n_weight_changes += 1
            self._head.forget()

    def rank(
        self,
        questions: Sequence[Question],
        labels: LabelIds,
        *,
        top_k: int = 1,
        scoring: Scoring = "trie",
        tolerance: float = 0.0,
    ) -> list[Ranking]:
        """Score every allowed label of every question by a forward pass of its own; `tolerance` is not needed."""
        score = self._log_likelihoods if scoring == "sequence" else self._log_choices
        results = []
        with self.lock:
            for question in questions:
                allowed = sorted(set(question.allowed))
                log_probs = score(question.prompt, [(*labels.sequences[i], labels.terminal) for i in allowed])
                ranked = sorted(zip(allowed, log_probs), key=lambda item: (-item[1], item[0]))
                results.append(Ranking(tuple(LabelScore(label, min(value, 0.0)) for label, value in ranked[:top_k])))
                self.work.n_prompts += 1
                self.work.n_prompt_tokens += len(question.prompt.ids)
        return results

    def decode(
        self, prompts: Sequence[Prompt], *, stop_ids: frozenset[int], max_new_tokens: int = DEFAULT_NEW_TOKENS
    ) -> list[FreeAnswer]:
        """Continue every prompt greedily."""
        results = []
        with self.lock:
            for prompt in prompts:
                written: list[int] = []
                log_prob, finished = 0.0, False
                while len(written) < max_new_tokens and not finished:
                    (token,), (value,) = self._head.greedy(self._hidden((*prompt.ids, *written))[-1:])
                    log_prob += value
                    if token in stop_ids:
                        finished = True
                    else:
                        written.append(token)
                results.append(FreeAnswer(tuple(written), log_prob, finished))
                self.work.n_prompts += 1
                self.work.n_prompt_tokens += len(prompt.ids)
        return results

    def _log_choices(self, prompt: Prompt, labels: list[TokenIds]) -> list[float]:
        """Product, along each label, of its token's probability among the tokens that some label has there."""
        values = []
        for ids in labels:
            hidden = self._hidden((*prompt.ids, *ids[:-1]))
            total = 0.0
            for i, token in enumerate(ids):
                choices = tuple(sorted({other[i] for other in labels if other[:i] == ids[:i] and len(other) > i}))
                row = hidden[len(prompt.ids) - 1 + i : len(prompt.ids) + i]
                logits = self._head.logits(row, choices, normalise=False)[0][0].astype("float64")
                total += float(logits[choices.index(token)]) - _log_sum_exp(logits.tolist())
            values.append(total)
        return values

    def _log_likelihoods(self, prompt: Prompt, labels: list[TokenIds]) -> list[float]:
        """Each label's share of the likelihood of all labels, terminal included."""
        values = []
        for ids in labels:
            hidden = self._hidden((*prompt.ids, *ids[:-1]))[len(prompt.ids) - 1 :]
            logits, norms = self._head.logits(hidden, ids, normalise=True)
            assert norms is not None
            values.append(sum(float(logits[i, i]) - float(norms[i]) for i in range(len(ids))))
        total = _log_sum_exp(values)
        return [value - total for value in values]

    @torch.inference_mode()
    def _hidden(self, ids: TokenIds) -> torch.Tensor:
        """Hidden states of one sequence. Shape: (n_tokens, hidden_size)."""
        self.work.n_forward += 1
        self.work.n_tokens += len(ids)
        model: Any = self.loaded.model
        output = model.get_decoder()(input_ids=torch.tensor([ids], device=self.device), use_cache=False)
        hidden: torch.Tensor = output.last_hidden_state[0]
        return hidden


def _log_sum_exp(values: list[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))
