"""What a user may write as a label set.

Owns the strict models of a label entry and of a schema file, the wording of the errors they give, and the way from
an entry to a `Label` and back. What labels mean together is in `label_set`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from spacy_relx.errors import SchemaError
from spacy_relx.label import Label, check_line

if TYPE_CHECKING:
    from collections.abc import Iterable


def _tuple_to_list(value: Any) -> Any:
    """Let Python callers write a tuple; saving the config makes it a list in any case."""
    return list(value) if isinstance(value, tuple) else value


TypeList = Annotated[list[str], BeforeValidator(_tuple_to_list)]


class LabelEntry(BaseModel):
    """The settings of one label, as written in a config or a schema file."""

    model_config = ConfigDict(strict=True, extra="forbid")

    description: str | None = None
    head: TypeList | None = None
    tail: TypeList | None = None
    symmetric: bool = False
    inverse: str | None = None
    threshold: float | None = None
    prompt: str | None = None
    id: str | None = None


class SchemaFile(BaseModel):
    """The content of a schema file."""

    model_config = ConfigDict(strict=True, extra="forbid")

    labels: dict[str, Any] | list[Any]
    name: str | None = None
    no_relation: str | None = None
    title: str | None = None
    source: str | None = None
    licence: str | None = None
    complete: bool = True
    n_published: int | None = None
    note: str | None = None


_EXPECTED = {
    "description": "a string",
    "head": 'a list of entity types such as ["ORG"]',
    "tail": 'a list of entity types such as ["PERSON"]',
    "symmetric": "true or false",
    "inverse": "the name of the mirror relation, a string",
    "threshold": "a number from 0 to 1, without quotes",
    "prompt": "a string: the text that the model sees instead of the name",
    "id": 'a string such as "P112"',
    "labels": "a list of label names, or a mapping of label names to their settings",
    "name": "a string",
    "no_relation": "a string: the name of the negative label, or null",
    "title": "a string",
    "source": "a string",
    "licence": "a string",
    "complete": "true or false",
    "n_published": "a whole number",
    "note": "a string",
}

M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], value: Mapping[str, Any], where: str) -> M:
    """Return `value` as a `model`.

    Raises:
        SchemaError: A key is unknown or missing, or a value has the wrong type. The message gives the place.
    """
    try:
        return model.model_validate(dict(value))
    except ValidationError as error:
        first = error.errors()[0]
    _raise_in_our_words(first, tuple(model.model_fields), where)


def _raise_in_our_words(error: Mapping[str, Any], known: tuple[str, ...], where: str) -> NoReturn:
    """Turn one of pydantic's errors into a sentence about the value, what was expected and what to do."""
    loc, found = error["loc"], error["input"]
    if not loc:
        raise SchemaError(f"{where} cannot be read: {error['msg']}. Expected these keys: {', '.join(known)}.")
    key = loc[0]
    if error["type"] in ("extra_forbidden", "invalid_key"):
        raise SchemaError(
            f"{where} has an unknown key {key!r}.{did_you_mean(key, known)} Known keys: {', '.join(known)}."
        )
    if error["type"] == "missing":
        raise SchemaError(f"{where} has no key {key!r}. Expected {_EXPECTED[key]}.")
    items = [part for part in loc[1:] if isinstance(part, int)]  # the other parts are pydantic's own type tags
    place = f"{where}.{key}" + "".join(f"[{i}]" for i in items)
    advice = "Expected a string." if items else f"Expected {_EXPECTED[key]}."
    if key in ("head", "tail") and isinstance(found, str):
        advice += f' Write ["{found}"].'
    if key == "threshold" and isinstance(found, str):
        advice += f" Write {found} without quotes." if _is_number(found) else ""
    raise SchemaError(f"{place} is {found!r} ({type(found).__name__}). {advice}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?`, or nothing when no known name is close."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def check_names(value: Any) -> None:
    """Refuse what is not a list of names or a mapping of names to settings."""
    if isinstance(value, str):
        raise SchemaError(
            f'labels is {value!r}. Expected a list or a mapping of labels. For one label write ["{value}"]; for a '
            f'packaged schema write {{"@misc": "spacy-relx.Schema.v1", "name": "{value}"}}.'
        )
    if not isinstance(value, Mapping | list | tuple):
        raise SchemaError(
            f"labels is {value!r} ({type(value).__name__}). Expected null, a list of names, a mapping of names to "
            'settings, or a block such as {"@misc": "spacy-relx.Schema.v1", "path": "labels.json"}.'
        )
    is_mapping = isinstance(value, Mapping)
    for i, name in enumerate(value):
        where = "The name of a label" if is_mapping else f"labels[{i}]"
        if not isinstance(name, str):
            advice = " For settings, write a mapping of names to settings." if isinstance(name, Mapping) else ""
            raise SchemaError(f"{where} is {name!r} ({type(name).__name__}). Expected a string.{advice}")
        check_line(name, where)
        if not is_mapping and name in value[:i]:
            raise SchemaError(f"labels[{i}] is {name!r}, which the list holds already. Expected each label once.")


def make_labels(value: Any) -> tuple[Label, ...]:
    """Return the labels of a list of names or a mapping of names to settings that `check_names` accepts."""
    entries = value if isinstance(value, Mapping) else dict.fromkeys(value)
    return tuple(_make_label(name, entry) for name, entry in entries.items())


def _make_label(name: str, value: Any) -> Label:
    where = f"labels.{name}"
    if isinstance(value, str):
        raise SchemaError(f'{where} is {value!r}. Expected settings; write {{"description": {json.dumps(value)}}}.')
    if value is not None and not isinstance(value, Mapping):
        raise SchemaError(f"{where} is {value!r} ({type(value).__name__}). Expected a mapping of settings, or null.")
    entry = validate(LabelEntry, value or {}, where)
    return Label(
        name=name,
        prompt=name if entry.prompt is None else entry.prompt,
        description=entry.description or "",
        head=tuple(dict.fromkeys(entry.head or ())),
        tail=tuple(dict.fromkeys(entry.tail or ())),
        symmetric=entry.symmetric,
        inverse=entry.inverse,
        threshold=entry.threshold,
        id=entry.id,
    )


def entry_of(label: Label) -> dict[str, Any]:
    """Return the settings of a label that differ from the defaults, as plain data."""
    entry: dict[str, Any] = {"prompt": label.prompt} if label.prompt != label.name else {}
    for key in ("description", "head", "tail", "symmetric", "inverse", "threshold", "id"):
        value = getattr(label, key)
        if value is not None and value is not False and value not in ("", ()):
            entry[key] = list(value) if isinstance(value, tuple) else value
    return entry
