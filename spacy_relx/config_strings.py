"""Which strings survive spaCy's config format.

Owns one question: would `nlp.to_disk` followed by `spacy.load` give this value back unchanged? The format breaks some
strings in silence, so they are refused when a component is made, with a message that names the way out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spacy_relx.errors import ConfigError, SchemaError

SCHEMA_FILE_WAY_OUT = (
    'Keep the labels in a JSON file and set labels to {"@misc": "spacy-relx.Schema.v1", "path": "labels.json"}: '
    "files hold any text."
)
EXAMPLES_WAY_OUT = "Keep the examples in a JSON file and set examples to its path: files hold any text."
SYSTEM_WAY_OUT = "Keep the system text in a file and set system to its path: files hold any text."
OTHER_WAY_OUT = "Choose other characters, or keep the text in a file."

# The marker that the parser of spaCy's config format puts where a whole section is referenced; a value that
# contains it is replaced by that section. Source: confection, `SECTION_PREFIX`.
SECTION_MARKER = "__SECTION__:"


def check_config_strings(value: Any, where: str, *, way_out: str | None = None) -> None:
    """Refuse every string that spaCy's config format would change or choke on when a pipeline is saved.

    The format writes a mapping as a section, whose path joins the keys with dots, and everything else as JSON in
    which `$` starts a variable. So what is safe depends on where a string stands: as a value, as the key of a
    mapping, as the key of anything else, or inside a list (where nested mappings are JSON, too).

    Args:
        value: Anything that JSON can hold.
        where: The place in the component's config, such as `labels` or `prompt.examples`.
        way_out: The advice that ends the message; by default the one that belongs to `where`.

    Raises:
        SchemaError: `where` is below `labels` and a string in `value` does not survive.
        ConfigError: The same, anywhere else.
    """
    if isinstance(value, str):
        _refuse(_problem_of_value(value), where, value, way_out)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            is_leaf = not isinstance(item, Mapping)
            _refuse(_problem_of_key(key, is_leaf), f"the key {key!r} in {where}", None, way_out, where)
            check_config_strings(item, f"{where}.{key}", way_out=way_out)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_json(item, f"{where}[{i}]", way_out)


def _check_json(value: Any, where: str, way_out: str | None) -> None:
    """Check what stands inside a list: it is written as one JSON text, so keys follow the rule for values."""
    if isinstance(value, str):
        _refuse(_problem_of_value(value), where, value, way_out)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            problem = _problem_of_value(key) if isinstance(key, str) else _NOT_A_STRING
            _refuse(problem, f"the key {key!r} in {where}", None, way_out, where)
            _check_json(item, f"{where}.{key}", way_out)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_json(item, f"{where}[{i}]", way_out)


_NOT_A_STRING = "is not a string"
_WRITE_BRACES = 'Give it settings, or {} instead of null, as in {"per:title": {}}.'


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def _problem_of_value(text: str) -> str | None:
    """Say what saving a pipeline would do to `text` as a value; None if nothing."""
    if "$" in text:
        return "contains '$', which starts a variable there: a lone one is doubled at every save, and '${' fails"
    if SECTION_MARKER in text:
        return f"contains {SECTION_MARKER!r}, which stands for a section of the config there"
    if _has_surrogate(text):
        return "contains half of a surrogate pair, which cannot be written as UTF-8"
    return None


def _problem_of_key(key: object, is_leaf: bool) -> str | None:
    """Say what saving a pipeline would do to the key of a mapping (of anything but a mapping, if a leaf)."""
    if not isinstance(key, str):
        return _NOT_A_STRING
    if "." in key:
        return "contains '.', which separates sections there: it is saved, and then spacy.load fails"
    if key.startswith("@"):
        return "starts with '@', which names a registered function there"
    if key == "*":
        return "is '*', which stands for positional arguments there"
    if "\n" in key or "\r" in key:
        return "contains a line break, which ends a section's name there"
    if _has_surrogate(key):
        return "contains half of a surrogate pair, which cannot be written as UTF-8"
    if not is_leaf:
        return None
    if not key or key != key.strip():
        return "is empty or has outer white space, which is cut off there"
    if "=" in key or ":" in key:
        return f"contains '=' or ':', which ends the key of a plain value there. {_WRITE_BRACES}"
    if key[0] in "#;[":
        return f"starts with {key[0]!r}, which starts a comment or a section there. {_WRITE_BRACES}"
    return None


def _refuse(problem: str | None, what: str, text: str | None, way_out: str | None, where: str = "") -> None:
    if problem is None:
        return
    place = where or what
    found = what if text is None else f"{what} is {text!r}. It"
    kind = SchemaError if place == "labels" or place.startswith(("labels.", "labels[")) else ConfigError
    raise kind(
        f"{found[0].upper() + found[1:] if text is None else found} cannot be kept in a spaCy config: it {problem}"
        f"{'' if problem.endswith('.') else '.'} {way_out or _way_out(place)}"
    )


def _way_out(place: str) -> str:
    if place.startswith("labels"):
        return SCHEMA_FILE_WAY_OUT
    if "examples" in place:
        return EXAMPLES_WAY_OUT
    return SYSTEM_WAY_OUT if "system" in place else OTHER_WAY_OUT
