"""A chat that a server renders, for whoever expects one that is rendered here.

Without the model's tokenizer there are no token ids. So a character takes the place of a token: a prompt is the code
points of the chat, a label those of its text. What is done with ids then works as ever.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from spacy_relx.engine.types import Prompt, TokenIds
from spacy_relx.errors import PromptError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Stands for the end of an answer; the first number that is no character.
END = 0x110000


class ServerTemplate:
    """Stands for the tokenizer of a model whose server renders the prompts."""


class ServerChat:
    """A chat whose last user turn is open, as `ChatTemplate`, with a character for a token.

    Args:
        turns: The turns before the query.
        template_kwargs: Variables of the server's chat template.

    Attributes:
        terminal: What ends an answer.
        stop_ids: The terminal.
        shared: The turns before the query, as JSON.
    """

    terminal = END
    stop_ids = frozenset({END})

    def __init__(self, turns: Sequence[Mapping[str, str]], template_kwargs: Mapping[str, Any]) -> None:
        self.shared = characters(json.dumps([list(turns), dict(template_kwargs)]))

    def prompt(self, query: str) -> Prompt:
        """The prompt whose last user turn is `query`."""
        return Prompt((*self.shared, *characters(query)), len(self.shared))

    def answer_ids(self, answer: str) -> TokenIds:
        """An answer's characters.

        Raises:
            PromptError: If it is empty or has outer white space.
        """
        if not answer or answer != answer.strip():
            raise PromptError(
                f"The label {answer!r} is empty, or begins or ends with white space. Expected a visible name without."
            )
        return characters(answer)

    def decode(self, ids: TokenIds) -> str:
        """The text of an answer."""
        return text_of(ids).strip()


def turns_of(prompt: Prompt) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """The turns of a chat, the query among them, and the variables of its template."""
    turns, template_kwargs = json.loads(text_of(prompt.ids[: prompt.n_shared]))
    return [*turns, {"role": "user", "content": text_of(prompt.ids[prompt.n_shared :])}], template_kwargs


def characters(text: str) -> TokenIds:
    """A text as numbers."""
    return tuple(map(ord, text))


def text_of(ids: TokenIds) -> str:
    """The text that the numbers of characters make."""
    return "".join(map(chr, ids))
