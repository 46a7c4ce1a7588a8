"""The model's chat template around a query, as token ids; text from users stays text.

A rendered chat is cut at the model's special tokens, which are hard boundaries for the tokenizer. What lies between two
of them is tokenised as one string with special tokens switched off, so that `<|im_end|>` in a document is five ordinary
tokens and never the end of a turn.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from spacy_relx.engine.types import Prompt, TokenIds
from spacy_relx.errors import PromptError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Given to every template unless told otherwise: Llama 3.2 prints the date, so answers would change daily.
#: The value is the one that template itself falls back to.
DEFAULT_TEMPLATE_KWARGS = {"date_string": "26 Jul 2024", "enable_thinking": False}

# Private-use characters, which no template looks at. They mark where contents stand in the rendered chat.
_SLOT = "\ue000{}\ue001"
_PAD = "\t"
_SLOT_PATTERN = re.compile(f"({_PAD}?)\ue000([0-9]+)\ue001({_PAD}?)")

_PROBE = "Sentence: Ada Lovelace wrote to Charles Babbage, in 1843.\nEntity 1: Ada Lovelace\nRelation:"


class ChatTemplate:
    """A chat whose last user turn is open.

    Args:
        tokenizer: A transformers tokenizer with a chat template.
        turns: The turns before the query.
        template_kwargs: Further variables of the template.

    Attributes:
        terminal: The token that the template puts after an assistant's content.
        stop_ids: Tokens that end free decoding: the terminal and the tokenizer's end of sequence.
        shared: The ids before the user turn that holds the query.

    Raises:
        PromptError: If the tokenizer has no usable template, or the ids made here would differ from the template's own.
    """

    def __init__(self, tokenizer: Any, turns: Sequence[Mapping[str, str]], template_kwargs: Mapping[str, Any]) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise PromptError(
                f"The tokenizer {getattr(tokenizer, 'name_or_path', '')!r} has no chat template. Expected an "
                "instruction-tuned model; use its Instruct version, or a folder whose tokenizer has a chat template."
            )
        self._tokenizer = tokenizer
        self._kwargs = {**DEFAULT_TEMPLATE_KWARGS, **template_kwargs}
        special = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._special = special
        ordered = sorted(special, key=len, reverse=True)
        self._special_pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

        roles = [*(turn["role"] for turn in turns), "user"]
        pieces = self._render(roles, add_generation_prompt=True)
        strips = self._strips(roles)
        contents = [turn["content"].strip() if strip else turn["content"] for turn, strip in zip(turns, strips)]
        self._strip_query = strips[-1]
        self.shared, self._left, self._right, self._suffix = self._around_query(pieces, contents)
        self._answer_run = self._answer_run_of(pieces[-1][0])
        self._answer_run_ids = self.encode(self._answer_run)
        self.terminal = self._terminal([*roles, "assistant"])
        eos = tokenizer.eos_token_id
        self.stop_ids = frozenset({self.terminal} | ({eos} if isinstance(eos, int) else set()))
        self._check(turns)

    def prompt(self, query: str) -> Prompt:
        """The prompt whose last user turn is `query`."""
        text = query.strip() if self._strip_query else query
        ids = (*self.shared, *self.encode(f"{self._left}{text}{self._right}"), *self._suffix)
        return Prompt(ids, len(self.shared))

    def encode(self, text: str) -> TokenIds:
        """Token ids of text; special tokens in it are text."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:
            return tuple(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
        backend.encode_special_tokens = True  # transformers resets it at calls of its own
        return tuple(backend.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: TokenIds) -> str:
        """Text of token ids, special tokens left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def answer_ids(self, answer: str) -> TokenIds:
        """Token ids of an answer as it follows the prompt.

        Raises:
            PromptError: If the answer has outer white space, no tokens, or changes the tokens before it.
        """
        if answer != answer.strip():
            raise PromptError(f"The label {answer!r} begins or ends with white space. Expected none; remove it.")
        ids = self.encode(self._answer_run + answer)
        n = len(self._answer_run_ids)
        if ids[:n] != self._answer_run_ids:
            raise PromptError(
                f"The label {answer!r} melts into the text before it ({self._answer_run!r}): this tokenizer has a token "
                "that spans both. Expected a label that starts a token of its own; give it another `prompt`."
            )
        if len(ids) == n:
            raise PromptError(f"The label {answer!r} has no tokens. Expected a visible name; give it a `prompt`.")
        return ids[n:]

    def _render(
        self, roles: Sequence[str], *, add_generation_prompt: bool, pad: str = ""
    ) -> list[tuple[str, int | None]]:
        """Render a chat with slots for its contents: (literal text, None) and (padding kept, number of the turn)."""
        messages = [{"role": role, "content": f"{pad}{_SLOT.format(i)}{pad}"} for i, role in enumerate(roles)]
        try:
            text = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt, **self._kwargs
            )
        except Exception as error:
            raise PromptError(f"The model's chat template cannot render turns by {list(roles)}: {error}") from error
        pieces: list[tuple[str, int | None]] = []
        at = 0
        for match in _SLOT_PATTERN.finditer(text):
            pieces += [(text[at : match.start()], None), (match[1] + match[3], int(match[2]))]
            at = match.end()
        pieces.append((text[at:], None))
        if [slot for _, slot in pieces if slot is not None] != list(range(len(roles))):
            raise PromptError("The model's chat template drops, repeats or reorders turns; it cannot be used here.")
        return pieces

    def _strips(self, roles: Sequence[str]) -> list[bool]:
        """Whether the template trims the content of each turn."""
        pieces = self._render(roles, add_generation_prompt=True, pad=_PAD)
        return [kept != 2 * _PAD for kept, slot in pieces if slot is not None]

    def _around_query(
        self, pieces: list[tuple[str, int | None]], contents: list[str]
    ) -> tuple[TokenIds, str, str, TokenIds]:
        """Ids before the query's stretch of plain text, that stretch on its two sides, and the ids after it."""
        stretches: list[int | str] = [""]  # special tokens by id, and what lies between them
        query = -1
        for text, slot in pieces:
            for part in self._cut(text) if slot is None else [contents[slot] if slot < len(contents) else None]:
                if isinstance(part, int):
                    stretches += [part, ""]
                elif part is not None:
                    stretches[-1] = f"{stretches[-1]}{part}"
                else:
                    query = len(stretches)
                    stretches.append("")
        left, right = str(stretches[query - 1]), str(stretches[query])
        if query + 1 == len(stretches):
            raise PromptError(
                "The model's chat template marks turns with ordinary text, not with special tokens, so a document "
                "could forge a turn. Use a model whose template marks turns with special tokens."
            )
        return self._encode_all(stretches[: query - 1]), left, right, self._encode_all(stretches[query + 1 :])

    def _cut(self, text: str) -> list[int | str]:
        """Cut literal text of the template at its special tokens."""
        parts: list[int | str] = []
        at = 0
        for match in self._special_pattern.finditer(text) if self._special_pattern else ():
            parts += [text[at : match.start()], self._special[match[0]]]
            at = match.end()
        return [*parts, text[at:]]

    def _encode_all(self, stretches: Sequence[int | str]) -> TokenIds:
        ids: list[int] = []
        for part in stretches:
            ids += (part,) if isinstance(part, int) else self.encode(part)
        return tuple(ids)

    def _terminal(self, roles: Sequence[str]) -> int:
        after = self._cut(self._render(roles, add_generation_prompt=False)[-1][0])
        if len(after) < 2 or after[0] != "" or not isinstance(after[1], int):
            raise PromptError(
                f"The model's chat template puts {after[0]!r} after an answer. Expected a special token that ends it."
            )
        return after[1]

    def _answer_run_of(self, text: str) -> str:
        """The plain text between the last special token of the prompt and the answer."""
        return str(self._cut(text)[-1])

    def _check(self, turns: Sequence[Mapping[str, str]]) -> None:
        """Compare with the template's own ids on plain text: what differs is a tokenizer this module does not know."""
        own = self._tokenizer.apply_chat_template(
            [*turns, {"role": "user", "content": _PROBE}],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=False,
            **self._kwargs,
        )
        made = self.prompt(_PROBE).ids
        if tuple(own) != made and not any(token in turn["content"] for turn in turns for token in self._special):
            raise PromptError(
                f"The tokenizer {self._tokenizer.name_or_path!r} tokenises a chat differently from its parts (it may "
                "add a dummy prefix), which is not supported. Use a model with a byte-level tokenizer."
            )
