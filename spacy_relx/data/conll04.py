"""CoNLL04 in both public forms; a file may hold either, or a mixture.

One form has BILOU `tags`: entities are read off them from left to right, and relations count in that list. The other
has `entities` with token offsets, the end exclusive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spacy_relx.data.base import (
    BadRow,
    DataSet,
    Item,
    Mention,
    Row,
    Split,
    check_label,
    join_words,
    parse_each,
    word_mention,
)
from spacy_relx.data.files import json_records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _read(path: Path) -> Iterator[Item]:
    def parse(place: str, id: str, record: dict[str, Any]) -> Iterator[Item]:
        text, places = join_words(record["tokens"])
        if "entities" in record:
            found = [(entity["start"], entity["end"], entity["type"]) for entity in record["entities"]]
        else:
            found = _entities(record["tags"], len(places))
        mentions = tuple(word_mention(places, start, end, type) for start, end, type in found)
        relations = tuple(_relation(relation, mentions) for relation in record["relations"])
        yield Row(str(record.get("orig_id", id)), place, text, mentions, relations, tuple(record["tokens"]))

    yield from parse_each(path, json_records(path), parse)


def _entities(tags: list[str], n_tokens: int) -> list[tuple[int, int, str]]:
    """Read (start, end, type) off BILOU tags."""
    if len(tags) != n_tokens:
        raise BadRow("another number of tags than tokens", f"{len(tags)} and {n_tokens}")
    entities: list[tuple[int, int, str]] = []
    begun: tuple[int, str] | None = None
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, type = tag.partition("-")
        goes_on = prefix in ("I", "L")
        if prefix not in ("B", "I", "L", "O", "U") or (prefix == "O") != (not type):
            raise BadRow("no BILOU tag", repr(tag))
        if goes_on != (begun is not None) or (begun is not None and begun[1] != type):
            raise BadRow("tags that contradict each other", f"{tag!r} at token {i}")
        if prefix == "B":
            begun = (i, type)
        elif prefix == "U":
            entities.append((i, i + 1, type))
        elif prefix == "L" and begun is not None:
            entities.append((begun[0], i + 1, type))
            begun = None
    return entities


def _relation(relation: dict[str, Any], mentions: tuple[Mention, ...]) -> tuple[int, int, str]:
    head, tail, label = relation["head"], relation["tail"], relation["type"]
    for index in (head, tail):
        if not 0 <= index < len(mentions):
            raise BadRow("a relation with an entity that is not there", f"{index} of {len(mentions)}")
    check_label("conll04", label)
    return head, tail, label


CONLL04 = DataSet(
    "conll04",
    "CoNLL04",
    "none stated",
    "https://github.com/YoumiMa/TablERT-CNN",
    _read,
    schema="conll04",
    splits=(
        Split("train", "conll04/conll04_train.json", 922, 1283),
        Split("dev", "conll04/conll04_dev.json", 231, 343),
        Split("test", "conll04/conll04_test.json", 288, 422),
    ),
    note="18 test sentences are in train as well and 3 in dev. The ordered entity types decide the label.",
)
