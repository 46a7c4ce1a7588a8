"""From text to token ids: rows as the model reads them, by the same chat template as inference."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from spacy_relx.chat import ChatTemplate
from spacy_relx.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from spacy_relx.engine.types import TokenIds
    from spacy_relx.training.rows import RowGroup

#: Chats whose template is kept: a pipeline has one, a mixture makes a new one for each group.
_N_TEMPLATES = 256


@dataclass(frozen=True, slots=True)
class TrainRow:
    """One question and its right answer as token ids.

    Attributes:
        prompt: Everything the model reads.
        answer: What it is to say, the terminal token at the end included; the tokens that the loss is taken of.
    """

    prompt: TokenIds
    answer: TokenIds

    @property
    def read(self) -> TokenIds:
        """The tokens that go through the model: nothing follows the last token of an answer."""
        return (*self.prompt, *self.answer[:-1])


class Encoder:
    """Makes token ids of row groups for one tokenizer.

    Args:
        tokenizer: A transformers tokenizer with a chat template.
        template_kwargs: Further variables of the template.
        max_tokens: Longest row that is accepted, or None.
    """

    def __init__(
        self, tokenizer: Any, template_kwargs: Mapping[str, Any] | None = None, max_tokens: int | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._kwargs = dict(template_kwargs or {})
        self._max_tokens = max_tokens
        self._chat = lru_cache(_N_TEMPLATES)(self._make_chat)

    def __reduce__(self) -> tuple[Any, ...]:
        # For worker processes, which make templates of their own: a cache does not pickle.
        return Encoder, (self._tokenizer, self._kwargs, self._max_tokens)

    def chat(self, turns: tuple[tuple[str, str], ...]) -> ChatTemplate:
        """The chat template around a question that follows these turns."""
        return self._chat(turns)

    def __call__(self, group: RowGroup) -> list[TrainRow]:
        """The rows of a group.

        Raises:
            DataError: If a row is longer than `max_tokens`.
            PromptError: If an answer cannot follow the prompt as tokens of its own.
        """
        chat = self.chat(group.turns)
        answers = {answer: (*chat.answer_ids(answer), chat.terminal) for answer in {answer for _, answer in group.rows}}
        rows = [TrainRow(chat.prompt(question).ids, answers[answer]) for question, answer in group.rows]
        if self._max_tokens is not None:
            for row, (question, _) in zip(rows, group.rows):
                if len(row.read) > self._max_tokens:
                    raise DataError(
                        f"A row has {len(row.read)} tokens, but at most {self._max_tokens} fit: {question[:80]!r}. "
                        "Shorten its text (the `window` of the candidates) or the label list, or allow longer packs."
                    )
        return rows

    def _make_chat(self, turns: tuple[tuple[str, str], ...]) -> ChatTemplate:
        return ChatTemplate(
            self._tokenizer, [{"role": role, "content": content} for role, content in turns], self._kwargs
        )


def count_label_tokens(rows: Iterable[TrainRow]) -> int:
    """Number of tokens that the loss is taken of."""
    return sum(len(row.answer) for row in rows)
