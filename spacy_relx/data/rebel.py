"""REBEL: JSON Lines of abstracts with offsets. Predicates are named as in the data; dates and values have types.

In some texts the offsets are wrong by a few characters. An entity whose text is not at its offsets is taken to be the
occurrence of its text that is nearest to them, which is reported.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from spacy_relx.data.base import ENTITY, BadRow, DataSet, Item, Mention, Problem, Row, Split, known_labels, parse_each
from spacy_relx.data.files import json_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Which program found an entity says what it is.
_TYPES = {"Date_Linker": "DATE", "Value_Linker": "VALUE"}


def _read(path: Path) -> Iterator[Item]:
    def parse(place: str, id: str, record: dict[str, Any]) -> Iterator[Item]:
        text = record["text"]
        index: dict[tuple[int, int], int] = {}
        mentions: list[Mention] = []
        problems: dict[Problem, None] = {}  # triples repeat their entities

        def add(entity: dict[str, Any]) -> int | None:
            found = _place(text, entity)
            if found is None:
                problems[Problem(place, "an entity that is not in the text", entity["surfaceform"], "mention")] = None
                return None
            if list(found) != entity["boundaries"]:
                detail = f"{entity['surfaceform']!r} at {entity['boundaries']}, found at {list(found)}"
                problems[Problem(place, "wrong offsets: the nearest occurrence is taken", detail, "note")] = None
            if found not in index:
                index[found] = len(mentions)
                type = _TYPES.get(entity["annotator"], ENTITY)
                mentions.append(Mention(*found, type, (entity["uri"] or "") if type == ENTITY else ""))
            return index[found]

        for entity in record["entities"]:
            add(entity)
        relations = []
        for triple in record["triples"]:
            label = triple["predicate"]["surfaceform"]
            if not isinstance(label, str) or not label:
                raise BadRow("a predicate without a name", repr(label))
            if label not in known_labels("rebel"):
                yield Problem(place, "a label outside the packaged schema, kept", label, "note")
            head, tail = add(triple["subject"]), add(triple["object"])
            if head is None or tail is None:
                names = (triple["subject"]["surfaceform"], label, triple["object"]["surfaceform"])
                yield Problem(place, "an argument that is not in the text", str(names), "relation")
            else:
                relations.append((head, tail, label))
        yield from problems
        # The text has several sentences, and the file does not say where they begin.
        yield Row(str(record["docid"]), place, text, tuple(mentions), tuple(relations), sents=())

    yield from parse_each(path, json_lines(path), parse)


def _place(text: str, entity: dict[str, Any]) -> tuple[int, int] | None:
    """Return where an entity is. Characters were taken out of some texts after the offsets were counted."""
    start, end = entity["boundaries"]
    surface = entity["surfaceform"]
    if text[start:end] == surface:
        return start, end
    places = [match.span() for match in re.finditer(re.escape(surface), text)] if surface.strip() else []
    return min(places, key=lambda found: abs(found[0] - start), default=None)


REBEL = DataSet(
    "rebel",
    "REBEL",
    "CC BY-NC-SA 4.0",
    "https://github.com/Babelscape/rebel",
    _read,
    schema="rebel",
    splits=(Split("sample", "rebel_sample/sample.jsonl", 1000, 2868),),
    note="Found by programs. No sentence boundaries: a Doc is one scope unless the pipeline sets them.",
)
