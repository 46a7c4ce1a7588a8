"""The values that cross the engine's border: prompts and label sets in, answers out. No torch, no spaCy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from spacy_relx.errors import PromptError

Scoring = Literal["trie", "sequence"]
TokenIds = tuple[int, ...]

#: Most tokens of a free answer, unless told otherwise. Source: the model card of the published adapters.
DEFAULT_NEW_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Prompt:
    """The token ids of one question to the model.

    Attributes:
        ids: Every token of the prompt, in order.
        n_shared: How many leading tokens belong to the run that all prompts of this component share
            (system text, label list, demonstrations). At least one token must follow it.
    """

    ids: TokenIds
    n_shared: int = 0

    def __post_init__(self) -> None:
        if not self.ids:
            raise PromptError("A prompt has no tokens. Expected at least one; check the prompt template.")
        if not 0 <= self.n_shared < len(self.ids):
            raise PromptError(
                f"A prompt of {len(self.ids)} tokens declares a shared run of {self.n_shared}. Expected "
                "0 <= n_shared < number of tokens: the last token is the one whose answer is read."
            )


@dataclass(frozen=True, slots=True)
class LabelIds:
    """The labels one prompt may be answered with, as token ids.

    Attributes:
        sequences: One id sequence a label, without the terminal, in schema order.
        terminal: The id that the chat template puts after an assistant's answer.
    """

    sequences: tuple[TokenIds, ...]
    terminal: int

    def __post_init__(self) -> None:
        if not self.sequences:
            raise PromptError("A label set is empty. Expected at least one label.")
        for i, ids in enumerate(self.sequences):
            if not ids:
                raise PromptError(f"Label number {i} has no tokens. Give it a visible name or prompt text.")
            if self.terminal in ids:
                raise PromptError(f"Label number {i} contains the end-of-answer token {self.terminal}.")
        if len(set(self.sequences)) != len(self.sequences):
            raise PromptError("Two labels have the same token ids. Give each label a prompt text of its own.")

    def __len__(self) -> int:
        return len(self.sequences)

    def subset(self, keep: tuple[int, ...]) -> LabelIds:
        """Return the label set restricted to the positions in `keep`, in that order."""
        return LabelIds(tuple(self.sequences[i] for i in keep), self.terminal)


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt and the positions (in the engine's label set) of the labels that may answer it."""

    prompt: Prompt
    allowed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LabelScore:
    """One label and its probability among the allowed labels.

    Attributes:
        label: Position in the label set.
        log_prob: Natural logarithm of the score; under `trie` scoring of the product of the renormalised choices,
            under `sequence` scoring of the label's share of the likelihood of all labels.
    """

    label: int
    log_prob: float

    @property
    def prob(self) -> float:
        """The score, in 0..1."""
        return min(1.0, math.exp(self.log_prob))


@dataclass(frozen=True, slots=True)
class Ranking:
    """The most probable labels of one prompt, best first.

    Attributes:
        scores: The `top_k` best labels; exact ties are in schema order.
        residual: Upper bound of the probability mass that the search left unexplored and that is missing from the
            normaliser: 0 under `trie` scoring, at most the stated tolerance under `sequence` scoring.
    """

    scores: tuple[LabelScore, ...]
    residual: float = 0.0


@dataclass(frozen=True, slots=True)
class FreeAnswer:
    """What greedy decoding wrote for one prompt.

    Attributes:
        ids: The generated tokens, without the terminal.
        log_prob: Sum of the log-probabilities of the generated tokens (and of the terminal where one came).
        finished: Whether a terminal was reached before the token limit.
    """

    ids: TokenIds
    log_prob: float
    finished: bool

    @property
    def prob(self) -> float:
        """Product of the token probabilities, in 0..1."""
        return min(1.0, math.exp(self.log_prob))


@dataclass(slots=True)
class Work:
    """Counters of the work an engine has done, so that tests and benchmarks can count instead of time.

    Attributes:
        n_prompts: Prompts answered.
        n_prompt_tokens: Tokens in those prompts, as if each had been computed alone.
        n_tokens: Tokens that went through the model.
        n_forward: Forward passes.
        n_expansions: Label-trie nodes that were evaluated after the prompt itself.
        n_out_of_memory: Packs that had to be halved.
        n_cached: Prompts whose answer was known; they are not in the other counters.
    """

    n_prompts: int = 0
    n_prompt_tokens: int = 0
    n_tokens: int = 0
    n_forward: int = 0
    n_expansions: int = 0
    n_out_of_memory: int = 0
    n_cached: int = 0
    extra: dict[str, int] = field(default_factory=dict)
