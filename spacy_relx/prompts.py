"""From a pair in its context to the token ids that the model reads, and from labels to the ids it may answer with.

The wording (`GenTunePrompt`) is configuration and needs no model. Bound to a tokenizer and a schema it becomes a
`PromptBuilder`, which makes the ids that the model's own chat template would give, except that text from users can
never become one of the model's control tokens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from spacy_relx.chat import open_chat
from spacy_relx.engine.types import DEFAULT_NEW_TOKENS, LabelIds, Prompt, TokenIds
from spacy_relx.errors import ConfigError, PromptError
from spacy_relx.schema import Label, Schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

#: Placeholders of a user turn.
USER_FIELDS = ("sentence", "head", "tail", "head_type", "tail_type", "cue")


@dataclass(frozen=True, slots=True)
class Example:
    """One demonstration: a sentence, its two entities, and the right answer; types for a user turn that shows them."""

    text: str
    head: str
    tail: str
    label: str
    head_type: str = ""
    tail_type: str = ""


@dataclass(frozen=True)
class GenTunePrompt:
    """The wording of the prompts.

    Attributes:
        system: The system text, in which `{labels}` stands for the list of labels; "" for none.
        user: One user turn; `{sentence}`, `{head}`, `{tail}`, `{head_type}`, `{tail_type}` and `{cue}` are filled in.
        cue: The last words before the answer.
        examples: Demonstrations, each a user turn and an assistant turn.
        descriptions: Whether label descriptions follow the labels' names in the list.
        template_kwargs: Further variables of the model's chat template.
        max_new_tokens: Most tokens that an answer of free decoding may have; longer ones are cut.
        missing_file: A file that the wording should have come from and that does not exist, or None.
    """

    system: str
    user: str
    cue: str = "Relation:"
    examples: tuple[Example, ...] = ()
    descriptions: bool = True
    template_kwargs: Mapping[str, Any] | None = None
    max_new_tokens: int = DEFAULT_NEW_TOKENS
    missing_file: str | None = None

    def fail(self) -> None:
        """Raise the error that a file of the wording does not exist, if that is so.

        Raises:
            ConfigError: Naming the file.
        """
        if self.missing_file is not None:
            raise ConfigError(
                f"The file {self.missing_file!r}, which the prompt block names, does not exist. Expected a readable "
                "file; check the path."
            )

    def validate(self, schema: Schema, no_relation: str | None) -> None:
        """Check the wording against the labels.

        Raises:
            PromptError: If an example is answered with a label that the schema lacks, or the labels are to be listed
                and there are none.
        """
        if "{labels}" in self.system and not len(schema):
            raise PromptError(
                'prompt.system lists the labels, but there are none. Give labels, or set prompt.system to "generic".'
            )
        if not len(schema):
            return
        answers = _answers(schema, no_relation)
        known = {*answers, *answers.values()}
        for i, example in enumerate(self.examples):
            if example.label not in known:
                names = ", ".join(sorted(known))
                raise PromptError(
                    f"prompt.examples[{i}] is answered with {example.label!r}, which is no label of the schema. "
                    f"Expected one of: {names}."
                )

    def label_list(self, schema: Schema, no_relation: str | None) -> str:
        """The labels as the `schema` system text lists them: sorted, joined by commas, with their descriptions."""

        def text(label: Label) -> str:
            return f"{label.prompt} ({label.description})" if self.descriptions and label.description else label.prompt

        shown = {label.prompt: text(label) for label in schema}
        if no_relation is not None:
            negative = negative_label(schema, no_relation)
            shown[negative.prompt] = text(negative)
        return ", ".join(shown[prompt] for prompt in sorted(shown))

    def system_text(self, schema: Schema, no_relation: str | None) -> str:
        """The system text with the labels filled in."""
        return self.system.replace("{labels}", self.label_list(schema, no_relation))

    def user_text(self, sentence: str, head: str, tail: str, head_type: str = "", tail_type: str = "") -> str:
        """One user turn. What stands in a field is never looked at for fields again."""
        values = {
            "sentence": clean(sentence),
            "head": clean(head),
            "tail": clean(tail),
            "head_type": clean(head_type),
            "tail_type": clean(tail_type),
            "cue": self.cue,
        }
        parts = _split_fields(self.user).copy()
        parts[1::2] = [values[field] for field in parts[1::2]]
        return "".join(parts)

    def messages(self, schema: Schema, no_relation: str | None) -> list[dict[str, str]]:
        """The chat turns before the query: system text and demonstrations."""
        turns = []
        if self.system:
            turns.append({"role": "system", "content": self.system_text(schema, no_relation)})
        prompt_of = _answers(schema, no_relation)
        for example in self.examples:
            pair = (example.head, example.tail, example.head_type, example.tail_type)
            turns.append({"role": "user", "content": self.user_text(example.text, *pair)})
            turns.append({"role": "assistant", "content": prompt_of.get(example.label, example.label)})
        return turns

    def bind(self, tokenizer: PreTrainedTokenizerBase, schema: Schema, no_relation: str | None) -> PromptBuilder:
        """Make the builder of token ids for one model and one set of labels.

        Raises:
            ConfigError: If a file of the wording is missing.
            PromptError: If the wording does not fit the labels, or the tokenizer cannot be used safely.
        """
        self.fail()
        self.validate(schema, no_relation)
        return PromptBuilder(self, tokenizer, schema, no_relation)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values from which `from_dict` makes an equal wording, without any file.

        Raises:
            ConfigError: If a file of the wording is missing, so that there is nothing to keep.
        """
        self.fail()
        return {
            "system": self.system,
            "user": self.user,
            "cue": self.cue,
            "examples": [_example_dict(example) for example in self.examples],
            "descriptions": self.descriptions,
            "template_kwargs": dict(self.template_kwargs or {}),
            "max_new_tokens": self.max_new_tokens,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GenTunePrompt:
        """Make a wording from what `to_dict` returned."""
        return cls(**{**data, "examples": tuple(Example(**example) for example in data["examples"])})


class PromptBuilder:
    """Makes prompts for one tokenizer and one set of labels.

    Args:
        wording: The wording.
        tokenizer: The model's tokenizer.
        schema: The labels.
        no_relation: The negative label as the model sees it, or None.

    Attributes:
        chat: The model's chat template around the query.
    """

    def __init__(
        self, wording: GenTunePrompt, tokenizer: PreTrainedTokenizerBase, schema: Schema, no_relation: str | None
    ) -> None:
        self.wording = wording
        self.chat = open_chat(tokenizer, wording.messages(schema, no_relation), wording.template_kwargs or {})

    def prompt(self, sentence: str, head: str, tail: str, head_type: str = "", tail_type: str = "") -> Prompt:
        """The prompt of one pair."""
        return self.chat.prompt(self.wording.user_text(sentence, head, tail, head_type, tail_type))

    def label_ids(self, labels: Sequence[str]) -> LabelIds:
        """The ids of the labels' prompt texts, as they follow the prompt.

        Raises:
            PromptError: If a label has outer white space, has no tokens, or melts into the text before it.
        """
        return LabelIds(tuple(self.chat.answer_ids(label) for label in labels), self.chat.terminal)

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer of free decoding."""
        return self.chat.stop_ids

    def decode(self, ids: TokenIds) -> str:
        """The text of an answer."""
        return self.chat.decode(ids)


#: What nobody sees and a model stumbles over: white space of no width, soft hyphens, and controls of the reading
#: direction. Joiners stay, as scripts and emoji need them.
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u061c\u200b\u200e\u200f\u2060\ufeff"))
_INVISIBLE |= dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)))


@lru_cache(maxsize=1024)  # a document's sentences and mentions stand in many of its prompts
def clean(text: str) -> str:
    """Bring text from a Doc to one line of visible, valid Unicode: a line break would read as the end of a field."""
    if not text.isascii():
        text = text.translate(_INVISIBLE).encode("utf-8", "replace").decode("utf-8")
    return " ".join(text.split())


def negative_label(schema: Schema, no_relation: str) -> Label:
    """The negative label that is called, or written in prompts as, `no_relation`."""
    own = schema.negative
    return own if own is not None and no_relation in (own.name, own.prompt) else Label(no_relation, no_relation)


def _answers(schema: Schema, no_relation: str | None) -> dict[str, str]:
    """What the model is to say for each label, by the label's name; the negative among them."""
    answers = {label.name: label.prompt for label in schema}
    if no_relation is not None:
        negative = negative_label(schema, no_relation)
        answers[negative.name] = negative.prompt
    return answers


_FIELD = re.compile(r"\{(" + "|".join(USER_FIELDS) + r")\}")


@lru_cache
def _split_fields(user: str) -> list[str]:
    """A user turn cut at its fields: literal text, the name of a field, literal text, and so on."""
    return _FIELD.split(user)


def _example_dict(example: Example) -> dict[str, str]:
    data = {"text": example.text, "head": example.head, "tail": example.tail, "label": example.label}
    types = {"head_type": example.head_type, "tail_type": example.tail_type}
    return data | {name: value for name, value in types.items() if value}
