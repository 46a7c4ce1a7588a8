"""FewRel, and Wiki80 that is built from it: tokens, two entities of Wikidata with token places, one relation a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spacy_relx._json import parse_json
from spacy_relx.data.base import (
    BadRow,
    DataSet,
    Item,
    Mention,
    Problem,
    Row,
    Split,
    check_label,
    join_words,
    names_by_id,
    parse_each,
    word_mention,
)
from spacy_relx.data.files import json_lines, read_text
from spacy_relx.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _read_fewrel(path: Path) -> Iterator[Item]:
    try:
        data = parse_json(read_text(path))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}.") from error
    if not isinstance(data, dict):
        raise DataError(f"{path}:1 holds a {type(data).__name__}. Expected an object with a list for each relation.")
    for label, records in data.items():
        if not isinstance(records, list):
            raise DataError(f"{path} holds a {type(records).__name__} under {label!r}. Expected a list of records.")
    names = {**names_by_id("wiki80"), **names_by_id("fewrel")}

    def parse(place: str, id: str, record: tuple[str, Any]) -> Iterator[Item]:
        id, row = record
        label = id.partition(" ")[0]
        if label not in names:
            raise BadRow("unknown label", label)
        text, places = join_words(row["tokens"])
        mentions: list[Mention] = []
        for _, kb_id, occurrences in (row["h"], row["t"]):
            tokens = occurrences[0]
            if len(occurrences) > 1:
                yield Problem(place, "an entity occurs several times: the first is taken", kb_id, "note")
            if tokens != list(range(tokens[0], tokens[0] + len(tokens))):
                raise BadRow("the tokens of an entity are not side by side", repr(tokens))
            mentions.append(word_mention(places, tokens[0], tokens[-1] + 1, kb_id=kb_id))
        yield Row(id, place, text, tuple(mentions), ((0, 1, names[label]),), tuple(row["tokens"]))

    yield from parse_each(
        path,
        (
            (f"{path} ({label}, record {n})", (f"{label} {n}", row))
            for label in data
            for n, row in enumerate(data[label], 1)
        ),
        parse,
    )


def _read_wiki80(path: Path) -> Iterator[Item]:
    def parse(place: str, id: str, row: dict[str, Any]) -> Iterator[Item]:
        check_label("wiki80", row["relation"])
        text, places = join_words(row["token"])
        mentions = []
        for entity in (row["h"], row["t"]):
            start, end = entity["pos"]
            mentions.append(word_mention(places, start, end, entity.get("type", ""), entity["id"]))
        yield Row(id, place, text, tuple(mentions), ((0, 1, row["relation"]),), tuple(row["token"]))

    yield from parse_each(path, json_lines(path), parse)


FEWREL = DataSet(
    "fewrel",
    "FewRel 1.0",
    "MIT",
    "https://github.com/thunlp/FewRel",
    _read_fewrel,
    schema="fewrel",
    splits=(Split("val_wiki", "fewrel/val_wiki.json", 11200, 11200),),
    note="No negatives. Labels are the names of Wikidata properties; train_wiki has those of wiki80.",
)
WIKI80 = DataSet(
    "wiki80",
    "Wiki80",
    "none stated; FewRel's is MIT",
    "https://github.com/thunlp/RE-Context-or-Names",
    _read_wiki80,
    schema="wiki80",
    splits=(Split("dev", "wiki80/dev.txt", 5600, 5600), Split("train_0.1", "wiki80/train_0.1.txt", 3920, 3920)),
    note="No negatives. 1,147 sentences of dev and 807 of train_0.1 are in FewRel's val_wiki as well.",
)
