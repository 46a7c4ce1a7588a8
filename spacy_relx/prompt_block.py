"""What a user may write as the wording of the prompts: `spacy-relx.GenTunePrompt.v1`.

Owns the checks of a prompt block, the presets, and the files that a block may name. What a wording does is in
`prompts`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from spacy_relx.config_strings import check_config_strings
from spacy_relx.engine.types import DEFAULT_NEW_TOKENS
from spacy_relx.errors import ConfigError
from spacy_relx.prompts import USER_FIELDS, Example, GenTunePrompt, clean

#: System texts that can be named instead of written out.
SYSTEM_PRESETS = ("generic", "schema", "training", "evaluation")

_VERSION = "gentune.v1"

#: Arguments of transformers' apply_chat_template that are not variables of a template.
_RESERVED_KWARGS = frozenset(
    {
        "conversation",
        "tokenize",
        "add_generation_prompt",
        "continue_final_message",
        "padding",
        "truncation",
        "max_length",
        "return_tensors",
        "return_dict",
        "return_assistant_tokens_mask",
        "tokenizer_kwargs",
    }
)


def make_gentune_prompt(
    system: Any = "schema",
    examples: Any = None,
    cue: Any = "Relation:",
    user: Any = None,
    descriptions: Any = True,
    template_kwargs: Any = None,
    max_new_tokens: Any = DEFAULT_NEW_TOKENS,
) -> GenTunePrompt:
    """Create the wording `spacy-relx.GenTunePrompt.v1`.

    Args:
        system: "schema" (labels are listed), "generic" (the model card's text), "training", "evaluation", a text of
            your own in which `{labels}` stands for the label list, or the path of a `.txt` file.
        examples: Demonstrations as a list of `{text, head, tail, label}`, with `head_type` and `tail_type` where `user`
            shows them, or the path of a `.json` or `.jsonl` file.
        cue: Last words of a user turn: "Relation:" as in the model card, "Answer:" as in the adapter's training.
        user: A user turn of your own, or the path of a `.txt` file; None: the model card's.
        descriptions: Whether label descriptions are listed with the labels.
        template_kwargs: Further variables of the chat template, such as `date_string`.
        max_new_tokens: Most tokens of an answer under `decoding="free"`, at least 1: 16 as in the model card, 64 in the
            published evaluation. Constrained answers are as long as their labels.

    Raises:
        ConfigError: If a setting is not usable or would not survive spaCy's config format.
    """
    missing: list[str] = []
    for name, value in (("system", system), ("cue", cue), ("user", user)):
        if not isinstance(value, str) and not (name == "user" and value is None):
            raise ConfigError(f"prompt.{name} is {value!r}. Expected a string.")
        check_config_strings(value, f"prompt.{name}")
    if not isinstance(descriptions, bool):
        raise ConfigError(f"prompt.descriptions is {descriptions!r}. Expected true or false.")
    if template_kwargs is not None and not isinstance(template_kwargs, Mapping):
        raise ConfigError(f"prompt.template_kwargs is {template_kwargs!r}. Expected a mapping, or null.")
    for name in template_kwargs or ():
        if not isinstance(name, str) or name in _RESERVED_KWARGS:
            raise ConfigError(
                f"prompt.template_kwargs has {name!r}. Expected variables of the chat template, such as date_string."
            )
    check_config_strings(template_kwargs, "prompt.template_kwargs")
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise ConfigError(f"prompt.max_new_tokens is {max_new_tokens!r}. Expected a whole number of at least 1.")
    system_text = _preset(f"system.{system}") if system in SYSTEM_PRESETS else _text_or_file(system, missing)
    user_text = _preset("user") if user is None else _text_or_file(user, missing)
    for field in re.findall(r"\{(\w+)\}", user_text):
        if field not in USER_FIELDS:
            raise ConfigError(
                f"prompt.user has the field {{{field}}}. Expected only: "
                f"{', '.join('{' + known + '}' for known in USER_FIELDS)}."
            )
    if not missing and not all(f"{{{field}}}" in user_text for field in ("sentence", "head", "tail")):
        raise ConfigError("prompt.user lacks {sentence}, {head} or {tail}. Expected all three.")
    return GenTunePrompt(
        system=system_text,
        user=user_text,
        cue=cue,
        examples=_read_examples(examples, missing),
        descriptions=descriptions,
        template_kwargs=dict(template_kwargs or {}),
        max_new_tokens=max_new_tokens,
        missing_file=missing[0] if missing else None,
    )


@lru_cache
def _preset(name: str) -> str:
    return files("spacy_relx").joinpath("templates", _VERSION, f"{name}.txt").read_text(encoding="utf-8")


def _text_or_file(value: str, missing: list[str]) -> str:
    if not value.endswith(".txt") or "\n" in value:
        return value
    path = Path(value)
    if not path.is_file():
        missing.append(value)
        return ""
    try:
        return path.read_text(encoding="utf-8-sig").strip("\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"The prompt file {value!r} is not UTF-8 text: {error}. Save it as UTF-8.") from error


def _read_examples(value: Any, missing: list[str]) -> tuple[Example, ...]:
    if value is None:
        return ()
    where = "prompt.examples"
    if isinstance(value, (str, Path)):
        import srsly

        path = Path(value)
        if path.suffix not in (".json", ".jsonl"):
            raise ConfigError(f"{where} is {str(value)!r}. Expected a list, or the path of a .json or .jsonl file.")
        if not path.is_file():
            missing.append(str(value))
            return ()
        try:
            rows = list(srsly.read_jsonl(path)) if path.suffix == ".jsonl" else srsly.read_json(path)
        except ValueError as error:
            raise ConfigError(f"{path} cannot be read as {path.suffix[1:].upper()}: {error}") from error
        where = str(path)
    else:
        check_config_strings(value, where)
        rows = value
    if not isinstance(rows, (list, tuple)):
        raise ConfigError(f"{where} is {rows!r}. Expected a list of mappings with text, head, tail and label.")
    return tuple(_example(row, f"{where}[{i}]") for i, row in enumerate(rows))


def _example(row: Any, where: str) -> Example:
    fields, types = ("text", "head", "tail", "label"), ("head_type", "tail_type")
    if not isinstance(row, Mapping) or set(row) - set(types) != set(fields):
        raise ConfigError(
            f"{where} is {row!r}. Expected a mapping with exactly: {', '.join(fields)}; and {' and '.join(types)}, "
            "where the user turn shows entity types."
        )
    for name in row:
        if not isinstance(row[name], str) or not row[name].strip():
            raise ConfigError(f"{where}.{name} is {row[name]!r}. Expected a string that is not empty.")
    for name in ("head", "tail"):
        if clean(row[name]) not in clean(row["text"]):
            raise ConfigError(f"{where}.{name} is {row[name]!r}, which does not occur in the text {row['text']!r}.")
    return Example(**row)
