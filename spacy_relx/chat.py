"""The model's chat template around a query, as token ids; text from users stays text.

A rendered chat is cut at the model's special tokens, which are hard boundaries for the tokenizer. What lies between two
of them is tokenised as one string with special tokens switched off, so that `<|im_end|>` in a document is a handful of
ordinary tokens and never the end of a turn.
"""

from __future__ import annotations

import json
import re
import threading
from typing import TYPE_CHECKING, Any, TypeAlias

from spacy_relx.engine.remote.template import ServerChat, ServerTemplate
from spacy_relx.engine.types import Prompt, TokenIds
from spacy_relx.errors import PromptError
from spacy_relx.seams import LineEncoder, can_cut

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Given to every template unless told otherwise: Llama 3.2 prints the date, so answers would change daily.
#: The value is the one that template itself falls back to.
DEFAULT_TEMPLATE_KWARGS = {"date_string": "26 Jul 2024", "enable_thinking": False}

# Private-use characters, which no template looks at. They mark where contents stand in the rendered chat.
_SLOT = "\ue000{}\ue001"
_PAD = "\t"
_SLOT_PATTERN = re.compile("\ue000([0-9]+)\ue001")

# A tokenizer's settings are its own, not a call's: another thread must not change them between setting and encoding.
_USES_TOKENIZER = threading.RLock()

_MARKUP = re.compile(r"<.+>|\[.+\]", re.DOTALL)

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
        self._special, self._backend = _control_tokens(tokenizer)
        self._control_ids = frozenset(self._special.values()) - {tokenizer.unk_token_id}
        ordered = sorted(self._special, key=len, reverse=True)
        self._encode_query = LineEncoder(self.encode) if can_cut(self._backend) else self.encode
        self._special_pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None
        for token in ordered:
            self.encode(token)  # a vocabulary in which a control token is also a word is found here, not in a document

        roles = [*(turn["role"] for turn in turns), "user"]
        pieces = self._render(roles, add_generation_prompt=True)
        trims = self._trims(roles)
        contents = [_trimmed(turn["content"], trim) for turn, trim in zip(turns, trims)]
        self._trim_query = trims[-1]
        self.shared, self._left, self._right, self._suffix = self._around_query(pieces, contents)
        self._answer_run = self._answer_run_of(pieces[-1][0])
        self._answer_run_ids = self.encode(self._answer_run)
        self.terminal = self._terminal([*roles, "assistant"])
        eos = tokenizer.eos_token_id
        self.stop_ids = frozenset({self.terminal} | ({eos} if isinstance(eos, int) else set()))
        self._check(turns)

    def prompt(self, query: str) -> Prompt:
        """The prompt whose last user turn is `query`."""
        text = _trimmed(query, self._trim_query)
        ids = (*self.shared, *self._encode_query(f"{self._left}{text}{self._right}"), *self._suffix)
        return Prompt(ids, len(self.shared))

    def encode(self, text: str) -> TokenIds:
        """Token ids of text; special tokens in it are text.

        Raises:
            PromptError: If the text is not valid Unicode, or the vocabulary gives a control token for it after all.
        """
        try:
            ids = self._ids(text)
        except (UnicodeEncodeError, TypeError) as error:
            raise PromptError(f"{text!r} is not valid Unicode (it has lone surrogates). Expected text.") from error
        if not self._control_ids.isdisjoint(ids):
            forged = next(token for token, i in self._special.items() if i in ids)
            raise PromptError(
                f"The tokenizer {self._tokenizer.name_or_path!r} makes its control token {forged!r} from the plain "
                f"text {text[:80]!r}, so a document could forge a turn. Use a model with a byte-level tokenizer."
            )
        return ids

    def _ids(self, text: str) -> TokenIds:
        with _USES_TOKENIZER:
            if self._backend is None:
                return tuple(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
            # transformers sets these at calls of its own, and a tokenizer's file may bring a length limit.
            self._backend.encode_special_tokens = True
            self._backend.no_truncation()
            self._backend.no_padding()
            return tuple(self._backend.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: TokenIds) -> str:
        """Text of token ids, special tokens left out."""
        with _USES_TOKENIZER:
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
                f"The label {answer!r} melts into the text before it ({self._answer_run!r}): this tokenizer has a "
                "token that spans both. Expected a label that starts a token of its own; give it another `prompt`."
            )
        if len(ids) == n:
            raise PromptError(f"The label {answer!r} has no tokens. Expected a visible name; give it a `prompt`.")
        return ids[n:]

    def _text(self, roles: Sequence[str], *, add_generation_prompt: bool, pad: str = "") -> str:
        """Render a chat with a slot for the content of each turn."""
        messages = [{"role": role, "content": f"{pad}{_SLOT.format(i)}{pad}"} for i, role in enumerate(roles)]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=add_generation_prompt, **self._kwargs
                )
            )
        except Exception as error:  # a template is a program of its author's, and raises what it likes
            hint = ' If it takes no system turn, set prompt.system to "".' if "system" in roles else ""
            raise PromptError(
                f"The model's chat template cannot render turns by {', '.join(roles)}: {error}.{hint}"
            ) from error

    def _render(self, roles: Sequence[str], *, add_generation_prompt: bool) -> list[tuple[str, int | None]]:
        """Render a chat as pieces: (literal text, None), and ("", number of the turn) where a content stands."""
        text = self._text(roles, add_generation_prompt=add_generation_prompt)
        pieces: list[tuple[str, int | None]] = []
        at = 0
        for match in _SLOT_PATTERN.finditer(text):
            pieces += [(text[at : match.start()], None), ("", int(match[1]))]
            at = match.end()
        pieces.append((text[at:], None))
        if [slot for _, slot in pieces if slot is not None] != list(range(len(roles))):
            raise PromptError(
                f"The model's chat template drops, repeats or reorders turns by {', '.join(roles)}. Expected each "
                'once, in order; leave out prompt.examples or set prompt.system to "", or use another model.'
            )
        return pieces

    def _trims(self, roles: Sequence[str]) -> list[tuple[bool, bool]]:
        """Whether the template trims the content of each turn, on its left and on its right."""
        text = self._text(roles, add_generation_prompt=True, pad=_PAD)
        slots = [_SLOT.format(i) for i in range(len(roles))]
        return [(_PAD + slot not in text, slot + _PAD not in text) for slot in slots]

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
        with _USES_TOKENIZER:
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


#: A chat whose last user turn is open.
Chat: TypeAlias = ChatTemplate | ServerChat


def open_chat(tokenizer: Any, turns: Sequence[Mapping[str, str]], template_kwargs: Mapping[str, Any]) -> Chat:
    """The chat whose last user turn is open, rendered here or, where only the server has the tokenizer, there.

    Raises:
        PromptError: If the tokenizer has no usable template, or the ids made here would differ from the template's own.
    """
    if isinstance(tokenizer, ServerTemplate):
        return ServerChat(turns, {**DEFAULT_TEMPLATE_KWARGS, **template_kwargs})
    return ChatTemplate(tokenizer, turns, template_kwargs)


def _control_tokens(tokenizer: Any) -> tuple[dict[str, int], Any]:
    """The tokens that user text must never become, by their text, and the fast tokenizer that can be told so.

    Besides the special tokens these are added tokens that look like markup (`<think>`, `[TOOL]`) though their file does
    not call them special. Only special ones can be switched off, so the others are made special in a copy.
    """
    added = dict(tokenizer.added_tokens_decoder)
    marks = {i for i, token in added.items() if not token.special and _MARKUP.fullmatch(token.content)}
    control = {token.content: i for i, token in added.items() if token.special or i in marks}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if marks and backend is not None:
        from tokenizers import Tokenizer

        file = json.loads(backend.to_str())
        for token in file["added_tokens"]:
            token["special"] = token["special"] or token["id"] in marks
        backend = Tokenizer.from_str(json.dumps(file))
    return control, backend


def _trimmed(text: str, sides: tuple[bool, bool]) -> str:
    left, right = sides
    text = text.lstrip() if left else text
    return text.rstrip() if right else text
