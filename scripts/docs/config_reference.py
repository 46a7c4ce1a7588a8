"""The configuration reference, from signatures and docstrings: the factory's settings and every registered block."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from griffe import Docstring, DocstringSectionKind
from markdown_tables import cell, table

from spacy_relx.label import Label
from spacy_relx.models import build_causal_lm
from spacy_relx.pipeline import make_relation_extractor
from spacy_relx.schema_config import LabelEntry
from spacy_relx.settings import DEFAULT_CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Entry points by the name that a config has for them, and what the section is called.
REGISTRIES = {
    "architectures": "Models",
    "misc": "Candidates, prompt, labels and training",
    "scorers": "Scorers",
    "readers": "Corpus readers",
}


def factory() -> str:
    """The settings of the component."""
    texts = argument_texts(make_relation_extractor)
    rows = [(f"`{key}`", default(value), texts[key]) for key, value in DEFAULT_CONFIG.items()]
    return table(("key", "default", "meaning"), rows)


def label() -> str:
    """The settings of one label."""
    texts = _described(Label)
    rows = [
        (f"`{name}`", default(field.default), _text(texts[name])) for name, field in LabelEntry.model_fields.items()
    ]
    return table(("key", "default", "meaning"), rows)


def blocks() -> str:
    """Every registered block, registry by registry."""
    parts = []
    for registry, title in REGISTRIES.items():
        parts.append(f"## {title}")
        alike: dict[str, list[str]] = {}  # the readers of data sets have one set of settings
        for name, function in registered(registry):
            alike.setdefault(about(function), []).append(name)
        parts.extend(section(registry, names, text) for text, names in alike.items())
    return "\n\n".join(parts)


def registered(registry: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield name and function of what this package registers."""
    for point in sorted(entry_points(group=f"spacy_{registry}"), key=lambda point: point.name.lower()):
        if point.value.startswith("spacy_relx."):
            yield point.name, point.load()


def section(registry: str, names: list[str], text: str) -> str:
    """Blocks that differ in their names alone: how a config writes them, and what they are."""
    title = f"`{names[0]}`" if len(names) == 1 else f"`{names[0]}` and {len(names) - 1} more"
    lines = "\n".join(f'@{registry} = "{name}"' for name in names)
    return f"### {title}\n\n```ini\n{lines}\n```\n\n{text}"


def about(function: Callable[..., Any]) -> str:
    """What a block is, and its settings."""
    texts = argument_texts(function)
    rows = [
        (f"`{parameter.name}`", default(parameter.default), texts[parameter.name])
        for parameter in inspect.signature(function).parameters.values()
    ]
    settings = table(("setting", "default", "meaning"), rows) if rows else "It has no settings."
    data_set = summary(function).startswith("Read files of ")
    return f"{'Reads a data set as examples.' if data_set else summary(function)}\n\n{settings}"


def summary(function: Callable[..., Any]) -> str:
    """The text of a docstring before its sections."""
    texts = [section.value for section in _sections(function) if section.kind is DocstringSectionKind.text]
    text = "\n\n".join(texts)
    what = re.match(r"Create `spacy-relx\.\w+\.v\d+`[:,] (.)", text)  # the heading has said that
    return text if what is None else what[1].upper() + text[what.end() :]


def argument_texts(function: Callable[..., Any]) -> dict[str, str]:
    """What each parameter of a function means.

    It is looked for in the function's own docstring, in the attributes of the class that it returns and of the
    dataclasses in that, and last in `build_causal_lm`, whose settings the presets share.

    Raises:
        LookupError: If a parameter is described nowhere.
    """
    own = _described(function)
    returned = {name: text for kind in _returned(function) for name, text in _described(kind).items()}
    known = {**_described(build_causal_lm), **returned, **own}
    names = inspect.signature(function).parameters
    missing = [name for name in names if name not in known]
    if missing:
        raise LookupError(f"{function.__module__}.{function.__name__} does not say what {', '.join(missing)} means.")
    return {name: _text(known[name]) for name in names}


def default(value: Any) -> str:
    """A default as a config writes it; nothing for a setting that has to be given."""
    if value is inspect.Parameter.empty:
        return "*required*"
    if isinstance(value, dict):
        return f"`{next(iter(value.values()))}`"  # a block: its registered name
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


def _text(description: str) -> str:
    """A description as a cell, with what a config writes for None."""
    return re.sub(r"\bNone\b", "`null`", cell(description))


def _returned(function: Callable[..., Any]) -> list[type]:
    """The class that a function says it returns, and the dataclasses that are its fields."""
    module = vars(sys.modules[function.__module__])
    kind = module.get(str(function.__annotations__.get("return", "")))
    if not dataclasses.is_dataclass(kind) or not isinstance(kind, type):
        return []
    inner = (vars(sys.modules[kind.__module__]).get(str(field.type)) for field in dataclasses.fields(kind))
    return [kind, *(part for part in inner if isinstance(part, type) and dataclasses.is_dataclass(part))]


def _described(thing: Any) -> dict[str, str]:
    kinds = (DocstringSectionKind.parameters, DocstringSectionKind.attributes)
    return {
        item.name: item.description for section in _sections(thing) if section.kind in kinds for item in section.value
    }


def _sections(thing: Any) -> list[Any]:
    text = inspect.getdoc(thing) or ""
    return Docstring(text, parser="google", parser_options={"warnings": False}).parse()
