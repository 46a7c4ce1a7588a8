"""Data sets that mark the two entities inside the text: SemEval-2010 Task 8, KBP37 and SciERC.

The first two have records of several lines: a number and the marked text, the label, perhaps a comment. `e1` is the
head and `e2` the tail whatever the label says of the direction: labels keep their `(e1,e2)` or `(e2,e1)`.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

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
    parse_each,
    word_mention,
)
from spacy_relx.data.files import json_lines, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FIRST_LINE = re.compile(r"(\d+)\t(.*)")
_TAG = re.compile(r"<(/?)(e[12])>")


class _Block(NamedTuple):
    id: str
    text: str
    label: str | None


def _read_blocks(path: Path, *, schema: str, tokenised: bool) -> Iterator[Item]:
    def parse(place: str, id: str, block: _Block) -> Iterator[Item]:
        if block.label is None:
            raise BadRow("no label", "the text is not followed by a line with the label")
        check_label(schema, block.label)
        if tokenised:
            text, words, head, tail = _marked_words(block.text.split(), ("<e1>", "</e1>"), ("<e2>", "</e2>"))
        else:
            text, head, tail = _marked_text(block.text)
            words = ()
        yield Row(block.id, place, text, (head, tail), ((0, 1, block.label),), words)

    yield from parse_each(path, _blocks(path), parse)


def _blocks(path: Path) -> Iterator[tuple[str, _Block] | Problem]:
    """Group lines into records. A record ends where the next begins."""
    place, block = "", None
    for n, line in enumerate(read_text(path).split("\n"), 1):
        first = _FIRST_LINE.fullmatch(line)
        if first:
            if block is not None:
                yield place, block
            place, block = f"{path}:{n}", _Block(first[1], _unquoted(first[2]), None)
        elif not line.strip() or line.startswith("Comment"):
            continue
        elif block is None:
            yield Problem(f"{path}:{n}", "not the first line of a record", line[:60])
        elif block.label is None:
            block = block._replace(label=line.strip())
        else:
            yield Problem(f"{path}:{n}", "a line after the label", line[:60], "note")
    if block is not None:
        yield place, block


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _marked_text(marked: str) -> tuple[str, Mention, Mention]:
    """Take <e1>, <e2> out of a text that is not tokenised."""
    text, at = "", 0
    borders: dict[str, list[int]] = {}
    for tag in _TAG.finditer(marked):
        text += marked[at : tag.start()]
        at = tag.end()
        borders.setdefault(tag[0], []).append(len(text))
    text += marked[at:]
    for tags in ("<e1>", "</e1>", "<e2>", "</e2>"):
        if len(borders.get(tags, ())) != 1:
            raise BadRow("expected each of <e1>, </e1>, <e2>, </e2> once", f"{tags} in {marked[:60]!r}")
    head, tail = (Mention(borders[f"<{e}>"][0], borders[f"</{e}>"][0]) for e in ("e1", "e2"))
    if not all(text[mention.start : mention.end].strip() for mention in (head, tail)):
        raise BadRow("a marked entity is empty", marked[:60])
    return text, head, tail


def _marked_words(
    tokens: list[str], head: tuple[str, str], tail: tuple[str, str]
) -> tuple[str, tuple[str, ...], Mention, Mention]:
    """Take markers that are tokens of their own out of a tokenised text."""
    words: list[str] = []
    borders: dict[str, list[int]] = {}
    markers = {*head, *tail}
    for token in tokens:
        if token in markers:
            borders.setdefault(token, []).append(len(words))
        else:
            words.append(token)
    for marker in (*head, *tail):
        if len(borders.get(marker, ())) != 1:
            raise BadRow(f"expected each of {' '.join((*head, *tail))} once", f"{marker} in {' '.join(tokens)[:60]!r}")
    text, places = join_words(words)
    for start, end in (head, tail):
        if borders[start][0] >= borders[end][0]:
            raise BadRow("a marked entity is empty", f"{start} {end} in {text[:60]!r}")
    a, b = (word_mention(places, borders[start][0], borders[end][0]) for start, end in (head, tail))
    return text, tuple(words), a, b


def _read_scierc(path: Path) -> Iterator[Item]:
    def parse(place: str, id: str, record: dict[str, Any]) -> Iterator[Item]:
        label = record["label"]
        check_label("scierc", label)
        text, words, head, tail = _marked_words(record["text"].split(), ("[[", "]]"), ("<<", ">>"))
        yield Row(id, place, text, (head, tail), ((0, 1, label),), words)

    yield from parse_each(path, json_lines(path), parse)


SEMEVAL = DataSet(
    "semeval2010_task8",
    "SemEval-2010 Task 8",
    "CC BY 3.0",
    "https://aclanthology.org/S10-1006/",
    partial(_read_blocks, schema="semeval2010_task8", tokenised=False),
    schema="semeval2010_task8",
    negative="Other",
    splits=(
        Split("train", "semeval2010_task8/TRAIN_FILE.TXT", 8000, 6590),
        Split("test", "semeval2010_task8/TEST_FILE_FULL.TXT", 2717, 2263),
    ),
    note="One pair a sentence; e1 comes first in the text, the label says the direction.",
)
KBP37 = DataSet(
    "kbp37",
    "KBP37",
    "none stated",
    "https://github.com/zhangdongxu/kbp37",
    partial(_read_blocks, schema="kbp37", tokenised=True),
    schema="kbp37",
    negative="no_relation",
    splits=(
        Split("train", "kbp37/train.txt", 15917),
        Split("dev", "kbp37/dev.txt", 1724),
        Split("test", "kbp37/test.txt", 3405),
    ),
    note="Noisy; tokenised, commas dropped. One pair a sentence.",
)
SCIERC = DataSet(
    "scierc",
    "SciERC",
    "Apache-2.0 (repository)",
    "https://github.com/allenai/scibert",
    _read_scierc,
    schema="scierc",
    splits=(
        Split("train", "scierc/train.txt", 3219, 3219),
        Split("dev", "scierc/dev.txt", 455, 455),
        Split("test", "scierc/test.txt", 974, 974),
    ),
    note="The relation form: [[ head ]], << tail >>. A row is a pair, so a sentence comes once for each of its pairs.",
)
