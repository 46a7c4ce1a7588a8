"""Which property of a vocabulary a label stands for: in a file, or the Wikidata ids of the packaged label sets."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_relx.errors import ConfigError
from spacy_relx.schema import bundled_schemas, load_schema, make_schema
from spacy_relx.schema_config import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from spacy_relx.schema import Label

#: What may stand before a colon.
PREFIXES = {
    "wdt": "http://www.wikidata.org/prop/direct/",
    "schema": "https://schema.org/",
    "dbo": "http://dbpedia.org/ontology/",
    "foaf": "http://xmlns.com/foaf/0.1/",
    "rel": "http://purl.org/vocab/relationship/",
    "org": "http://www.w3.org/ns/org#",
    "dcterms": "http://purl.org/dc/terms/",
    "rdfs": "http://www.w3.org/2000/01/rdf-schema#",
    "skos": "http://www.w3.org/2004/02/skos/core#",
    "owl": "http://www.w3.org/2002/07/owl#",
}
_WIKIDATA = re.compile(r"P[1-9]\d*")
_IRI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\x00-\x20<>\"{}|\\^`]+")


@dataclass(frozen=True, slots=True)
class Property:
    """A property and the direction in which it is told.

    Attributes:
        iri: Its IRI.
        is_reversed: Whether it leads from the tail to the head.
    """

    iri: str
    is_reversed: bool = False


def load_properties(name_or_path: str) -> dict[str, Property]:
    """Read which property each label stands for; a label that is not in the result has none.

    Args:
        name_or_path: One of `mapped_schemas()`, whose labels are Wikidata properties; or a JSON file: a schema whose
            labels have such an `id`, or an object of labels and properties. A property is an IRI, a name with one of
            `PREFIXES` (`schema:birthPlace`) or a Wikidata id (`P19`); `^` before it says that it leads from the tail
            to the head.

    Raises:
        ConfigError: If there is no such mapping, or a property in it is none.
    """
    path = Path(name_or_path)
    if path.is_file():
        return _from_file(path)
    if path.suffix == ".json":
        raise ConfigError(f"The file {name_or_path!r} does not exist. Expected JSON: labels and their properties.")
    if name_or_path in bundled_schemas():
        own = resources.files("spacy_relx.export") / "wikidata" / f"{name_or_path}.json"
        found = parse_properties(json.loads(own.read_text("utf8")), own.name) if own.is_file() else {}
        schema: Any = make_schema(name_or_path)
        if found := found | _of_labels(schema.labels):
            return found
    known = mapped_schemas()
    raise ConfigError(
        f"There are no properties for {name_or_path!r}.{did_you_mean(name_or_path, known)} Expected one of "
        f'{", ".join(known)}, or a JSON file such as {{"born_in": "wdt:P19"}}.'
    )


def mapped_schemas() -> list[str]:
    """Return the packaged label sets whose labels, or most of them, have a Wikidata property."""
    own = {f.name.removesuffix(".json") for f in (resources.files("spacy_relx.export") / "wikidata").iterdir()}
    schemas: dict[str, Any] = {name: make_schema(name) for name in bundled_schemas()}
    return sorted(own | {name for name, schema in schemas.items() if _of_labels(schema.labels)})


def parse_properties(data: Mapping[str, Any], where: str) -> dict[str, Property]:
    """Check a mapping of labels to properties.

    Raises:
        ConfigError: If a property is none.
    """
    return {label: _property(value, f"{where}: {label!r}") for label, value in data.items()}


def _from_file(path: Path) -> dict[str, Property]:
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ConfigError(f"{str(path)!r} is not JSON: {error}. Expected labels and their properties.") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{str(path)!r} holds {type(data).__name__}. Expected labels and their properties.")
    if not isinstance(data.get("labels"), (dict, list)):
        return parse_properties(data, str(path))
    found = _of_labels(load_schema(path).labels)
    if not found:
        raise ConfigError(f"No label of the schema {str(path)!r} has an id such as P19. Expected Wikidata properties.")
    return found


def _of_labels(labels: Iterable[Label]) -> dict[str, Property]:
    return {
        label.name: Property(PREFIXES["wdt"] + label.id)
        for label in labels
        if label.id is not None and _WIKIDATA.fullmatch(label.id)
    }


def _property(value: Any, where: str) -> Property:
    if isinstance(value, str):
        text = value.removeprefix("^")
        prefix, colon, rest = text.partition(":")
        if _WIKIDATA.fullmatch(text):
            text = PREFIXES["wdt"] + text
        elif colon and prefix in PREFIXES:
            text = PREFIXES[prefix] + rest
        elif not rest.startswith("//") and prefix != "urn":
            text = ""
        if _IRI.fullmatch(text):
            return Property(text, is_reversed=value.startswith("^"))
    raise ConfigError(
        f"{where} has the property {value!r}. Expected an IRI, a Wikidata id such as P19, or a name with one of the "
        f"prefixes {', '.join(PREFIXES)}."
    )
