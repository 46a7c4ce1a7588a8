"""Other ways to write labels: paraphrases of their names and sentences that say what they mean.

Owns the format of the files and the packaged ones. No torch, no spaCy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from spacy_relx._json import parse_json
from spacy_relx.errors import ConfigError, SchemaError
from spacy_relx.label import check_line

_TEXTS = ("paraphrases", "definitions")
# A file may also say between which entity types a label holds, for whoever makes a schema of it.
_TYPES = ("head", "tail")


@dataclass(frozen=True, slots=True)
class LabelWordings:
    """Other ways to write one label.

    Attributes:
        paraphrases: Texts that may stand for its name.
        definitions: Sentences that say what it means.
    """

    paraphrases: tuple[str, ...] = ()
    definitions: tuple[str, ...] = ()


def packaged_wordings() -> tuple[str, ...]:
    """Return the names of the packaged files of wordings, sorted."""
    folder = files("spacy_relx") / "training" / "wordings"
    names = (entry.name for entry in folder.iterdir()) if folder.is_dir() else ()
    return tuple(sorted(name.removesuffix(".json") for name in names if name.endswith(".json")))


def read_wordings(name: str) -> dict[str, LabelWordings]:
    """Read other wordings for labels.

    Args:
        name: A packaged file's name, or the path of a `.json` file such as
            `{"labels": {"works_for": {"paraphrases": ["is employed by"], "definitions": ["…"]}}}`.

    Raises:
        ConfigError: If there is no such file, or it is of another form.
    """
    if name in packaged_wordings():
        text = (files("spacy_relx") / "training" / "wordings" / f"{name}.json").read_text(encoding="utf-8")
    elif Path(name).is_file():
        try:
            text = Path(name).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ConfigError(f"The wordings {name!r} are not UTF-8 text: {error}. Save them as UTF-8.") from error
    else:
        known = ", ".join(packaged_wordings()) or "none"
        raise ConfigError(
            f"mixture.wordings is {name!r}. Expected the name of a packaged file ({known}), or the path of a .json "
            "file that exists."
        )
    try:
        data = parse_json(text)
    except ValueError as error:
        raise ConfigError(f"The wordings {name!r} are not JSON: {error}.") from error
    entries = data.get("labels") if isinstance(data, Mapping) else None
    if not isinstance(entries, Mapping):
        raise ConfigError(f'The wordings {name!r} have no mapping "labels". Expected names with their wordings.')
    return {label: _label_wordings(entry, f"The wordings {name!r}: {label}") for label, entry in entries.items()}


def _label_wordings(entry: Any, where: str) -> LabelWordings:
    if not isinstance(entry, Mapping) or not set(entry) <= {*_TEXTS, *_TYPES}:
        raise ConfigError(f"{where} is {entry!r}. Expected a mapping with paraphrases, definitions or both.")
    texts = {}
    for kind, values in entry.items():
        if kind in _TYPES:
            continue
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise ConfigError(f"{where}.{kind} is {values!r}. Expected a list of strings.")
        for i, value in enumerate(values):
            try:
                check_line(value, f"{where}.{kind}[{i}]")
            except SchemaError as error:
                raise ConfigError(str(error)) from error
        texts[kind] = tuple(dict.fromkeys(values))
    return LabelWordings(**texts)
