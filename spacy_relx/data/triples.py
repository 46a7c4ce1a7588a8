"""Sentences with triples of strings and no offsets: NYT11 (two public forms) and WebNLG.

The strings are found by the rule of `align`. A triple whose head or tail cannot be found is reported and left out; its
sentence stays.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from spacy_relx.data.align import align
from spacy_relx.data.base import ENTITY, BadRow, DataSet, Item, Mention, Problem, Row, Split, check_label, parse_each
from spacy_relx.data.files import json_records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_Triple = tuple[str, str, str]


def _read(path: Path, *, schema: str | None) -> Iterator[Item]:
    def parse(place: str, id: str, record: dict[str, Any]) -> Iterator[Item]:
        text, triples, types = _record(record)
        for _, label, _ in triples:
            # "None" marks a negative pair in one of the forms.
            if schema is not None and label != "None":
                check_label(schema, label)
        yield from aligned_row(id, place, text, triples, types)

    yield from parse_each(path, json_records(path), parse)


def aligned_row(
    id: str, place: str, text: str, triples: list[_Triple], types: dict[str, str], *, tokenised: bool = True
) -> Iterator[Item]:
    """Find the strings of (head, label, tail) triples in the text; give the problems, then the row.

    Args:
        id: Identifier of the row.
        place: File and line.
        text: The text.
        triples: What holds between which strings.
        types: Entity types of strings; a string that is here is a mention even if no triple has it.
        tokenised: Whether white space separates tokens.
    """
    if not all(isinstance(value, str) for value in (text, *(part for triple in triples for part in triple))):
        raise BadRow("text, entities and labels must be strings", repr((text[:40], triples[:1])))
    words: tuple[str, ...] = ()
    if tokenised:
        words = tuple(text.split())
        text = " ".join(words)
    surfaces = dict.fromkeys([part for head, _, tail in triples for part in (head, tail)] + list(types))
    found = align(text, [" ".join(surface.split()) for surface in surfaces])
    index: dict[str, int] = {}
    mentions: list[Mention] = []
    for surface in surfaces:
        place_of = found.get(" ".join(surface.split()))
        if place_of is None:
            if surface in types:
                yield Problem(place, "an entity that is not in the text", repr(surface), "mention")
            continue
        for note in place_of.notes:
            yield Problem(place, f"an entity {note}", repr(surface), "note")
        index[surface] = len(mentions)
        mentions.append(Mention(place_of.start, place_of.end, types.get(surface, ENTITY)))
    relations = []
    for head, label, tail in triples:
        missing = [repr(part) for part in (head, tail) if part not in index]
        if missing:
            detail = f"{', '.join(missing)} of {(head, label, tail)}"
            yield Problem(place, "an argument that is not in the text", detail, "relation")
        else:
            relations.append((index[head], index[tail], label))
    yield Row(id, place, text, tuple(mentions), tuple(relations), words)


def _record(record: dict[str, Any]) -> tuple[str, list[_Triple], dict[str, str]]:
    """Return text, triples and entity types of a record in either form."""
    if "sentText" in record:
        types = {e["text"]: e.get("label") or ENTITY for e in record.get("entityMentions", ())}
        found = [(r["em1Text"], r["label"], r["em2Text"]) for r in record["relationMentions"]]
        return record["sentText"].strip(), found, types
    triples = []
    for triple in record["triple_list"]:
        if len(triple) != 3:
            raise BadRow("a triple does not have three parts", repr(triple))
        triples.append((triple[0], triple[1], triple[2]))
    return record["text"], triples, {}


NYT11 = DataSet(
    "nyt11",
    "NYT11",
    "none stated",
    "https://github.com/hy-struggle/PRGC",
    partial(_read, schema="nyt11"),
    schema="nyt11",
    negative="None",
    splits=(
        Split("dev", "nyt/val_triples.json", 5000, 8489, 7985),
        Split("test", "nyt/test_triples.json", 5000, 8616, 8120),
    ),
    note="Distant supervision; strings without offsets; several labels on 15 % of the test pairs.",
)
WEBNLG = DataSet(
    "webnlg",
    "WebNLG",
    "CC BY-NC-SA 4.0",
    "https://github.com/hy-struggle/PRGC",
    partial(_read, schema=None),
    splits=(
        Split("train", "webnlg/train_triples.json", 5019),
        Split("dev", "webnlg/val_triples.json", 500),
        Split("test", "webnlg/test_triples.json", 703),
    ),
    note="Strings without offsets; no entity types.",
)
