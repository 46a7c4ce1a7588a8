"""TACRED and Re-TACRED, whose JSON is the same: tokens, subject and object with inclusive ends, one relation a row."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from spacy_relx.data.base import DataSet, Item, Row, Split, check_label, join_words, parse_each, word_mention
from spacy_relx.data.files import json_records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _read(path: Path, *, schema: str) -> Iterator[Item]:
    def parse(place: str, id: str, record: dict[str, Any]) -> Iterator[Item]:
        label = record["relation"]
        check_label(schema, label)
        words = tuple(record["token"])
        text, places = join_words(words)
        head = word_mention(places, record["subj_start"], record["subj_end"] + 1, record["subj_type"])
        tail = word_mention(places, record["obj_start"], record["obj_end"] + 1, record["obj_type"])
        yield Row(str(record.get("id", id)), place, text, (head, tail), ((0, 1, label),), words)

    yield from parse_each(path, json_records(path), parse)


TACRED = DataSet(
    "tacred",
    "TACRED",
    "LDC User Agreement (LDC2018T24)",
    "https://catalog.ldc.upenn.edu/LDC2018T24",
    partial(_read, schema="tacred"),
    schema="tacred",
    negative="no_relation",
    splits=(
        Split("train", "tacred/train.json", 68124, 13012),
        Split("dev", "tacred/dev.json", 22631, 5436),
        Split("test", "tacred/test.json", 15509, 3325),
    ),
    note="The text is licensed by the LDC and comes with nothing here. The subject is the head.",
)
RETACRED = DataSet(
    "retacred",
    "Re-TACRED",
    "labels: none stated; text: LDC User Agreement (LDC2018T24)",
    "https://github.com/gstoica27/Re-TACRED",
    partial(_read, schema="retacred"),
    schema="retacred",
    negative="no_relation",
    note="TACRED's text with labels revised; the subject is the head.",
)
