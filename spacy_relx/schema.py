"""Schemas as users meet them: `labels` in a config, a file, or one of the packaged label sets.

Owns the way from those to a `Schema`, and nothing of what it means: a label is in `label`, a set of labels in
`label_set`, what an entry may say in `schema_config`, and which strings a saved pipeline can hold in `config_strings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

from spacy_relx._json import parse_json
from spacy_relx.config_strings import check_config_strings
from spacy_relx.errors import SchemaError
from spacy_relx.label import Label, check_line
from spacy_relx.label_set import About, Schema, take_negative
from spacy_relx.schema_config import check_names, did_you_mean, make_labels

__all__ = [
    "About",
    "Label",
    "MissingSchema",
    "Schema",
    "bundled_schemas",
    "check_config_strings",
    "load_schema",
    "make_schema",
    "parse_labels",
]

DEFAULT_SCHEMA = "general"


def parse_labels(value: Any, *, no_relation: str | None = "no_relation") -> Schema:
    """Build the schema from what a user may write as `labels`.

    Args:
        value: None for the packaged general schema, a list of names, a mapping of names to settings (null for none),
            or a `Schema`. The order is kept, except that null entries of a mapping come last.
        no_relation: Name of the negative label. An entry of that name is the negative, not one of the labels.

    Raises:
        SchemaError: The labels cannot be used; the message names the place, what was expected and what to do.
    """
    if no_relation is not None:
        if not isinstance(no_relation, str):
            raise SchemaError(f"no_relation is {no_relation!r}. Expected the negative label's name, or null.")
        check_line(no_relation, "no_relation")
        check_config_strings(no_relation, "no_relation")
    if value is None:
        schema = _load_bundled(DEFAULT_SCHEMA)
    elif isinstance(value, Schema):
        schema = value
    else:
        check_names(value)
        check_config_strings(value, "labels")
        schema = Schema(make_labels(_as_saved(value)))
    return take_negative(schema, no_relation)


def _as_saved(value: Any) -> Any:
    """Return a mapping in the order in which a saved config gives it back: entries that are null come last.

    Schema order decides ties and is seen in prompts, so it must be the same before and after `spacy.load`.
    """
    if isinstance(value, Mapping):
        return dict(sorted(value.items(), key=lambda item: item[1] is None))
    return value


@dataclass(frozen=True)
class MissingSchema:
    """Stands for a schema file that does not exist.

    A saved pipeline carries a copy of its schema, while its config still names the file it came from; on another
    machine that name leads nowhere, and must not keep the pipeline from loading.
    """

    path: str

    def fail(self) -> NoReturn:
        """Raise the error that reading the file gives.

        Raises:
            SchemaError: Always.
        """
        load_schema(self.path)
        raise SchemaError(f"The schema file {self.path!r} appeared after the pipeline was made; make it again.")


def make_schema(name: str | None = None, path: str | Path | None = None) -> Schema | MissingSchema:
    """Load a packaged schema by name, or any schema from a file (`spacy-relx.Schema.v1`).

    Args:
        name: One of `bundled_schemas()`; the general schema if neither is given.
        path: A JSON file as `Schema.to_dict` describes it.

    Raises:
        SchemaError: Both are given, the name is unknown, or the file exists and cannot be used.
    """
    if path is not None:
        if name is not None:
            raise SchemaError(f"Schema.v1 got name={name!r} and path={str(path)!r}. Expected one of the two.")
        return load_schema(path) if Path(path).exists() else MissingSchema(str(path))
    name = DEFAULT_SCHEMA if name is None else name
    if name not in bundled_schemas():
        raise SchemaError(
            f"There is no packaged schema {name!r}.{did_you_mean(name, bundled_schemas())} "
            f"Packaged: {', '.join(bundled_schemas())}. For a schema of your own, give path= instead of name=."
        )
    return _load_bundled(name)


def load_schema(path: str | Path) -> Schema:
    """Read a schema file.

    Raises:
        SchemaError: The file is missing, is not JSON, or does not hold a usable schema.
    """
    try:
        with open(path, encoding="utf8") as file:
            text = file.read()
    except OSError as error:
        raise SchemaError(
            f"The schema file {str(path)!r} cannot be read: {error.strerror or error}. Expected a JSON file such as "
            '{"labels": {"founded_by": {"head": ["ORG"], "tail": ["PERSON"]}}}; check the path.'
        ) from error
    except UnicodeDecodeError as error:
        raise SchemaError(f"The schema file {str(path)!r} is not UTF-8 text: {error}. Save it as UTF-8.") from error
    return _from_json(text, str(path))


@lru_cache(maxsize=1)
def bundled_schemas() -> tuple[str, ...]:
    """Return the names of the packaged schemas, sorted."""
    files = resources.files("spacy_relx") / "schemas"
    return tuple(sorted(f.name.removesuffix(".json") for f in files.iterdir() if f.name.endswith(".json")))


@lru_cache
def _load_bundled(name: str) -> Schema:
    file = resources.files("spacy_relx") / "schemas" / f"{name}.json"
    return _from_json(file.read_text(encoding="utf8"), file.name)


def _from_json(text: str, where: str) -> Schema:
    try:
        data = parse_json(text, object_pairs_hook=_refuse_repeated_keys)
        if not isinstance(data, Mapping):
            raise SchemaError(f'It holds a {type(data).__name__}. Expected an object with the key "labels".')
        return Schema.from_dict(data)
    except SchemaError as error:  # a ValueError, too
        raise SchemaError(f"The schema file {where!r} cannot be used. {error}") from error
    except ValueError as error:
        raise SchemaError(f"The schema file {where!r} is not JSON: {error}. Expected an object.") from error


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise SchemaError(f"The key {twice!r} appears twice in one object. Expected each once; remove one.")
    return data
