"""Tables with the columns text, entity1, entity2, relation: Biographical and PG-Fiction, and any data like them.

A row is a pair, in .csv, .tsv, .jsonl, .json or .parquet. entity1 is the head. The two strings are found by the rule of
`align`; a row whose entities are not both in its text is skipped and reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spacy_relx.data.base import BadRow, DataSet, Item, Problem, parse_each
from spacy_relx.data.files import table
from spacy_relx.data.triples import aligned_row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COLUMNS = ("text", "entity1", "entity2", "relation")


def _read(path: Path) -> Iterator[Item]:
    def parse(place: str, id: str, record: dict[str, Any]) -> Iterator[Item]:
        text, head, tail, label = (record[name] for name in COLUMNS)
        for name, value in zip(COLUMNS, (text, head, tail, label)):
            if not isinstance(value, str) or not value.strip():
                raise BadRow(f"the column {name} has no text", repr(value))
        for item in aligned_row(id, place, text, [(head, label.strip(), tail)], {}, tokenised=False):
            if isinstance(item, Problem) and item.what == "relation":
                raise BadRow("an entity is not in the text", item.detail)
            yield item

    yield from parse_each(path, table(path, COLUMNS), parse)


BIOGRAPHICAL = DataSet(
    "biographical",
    "Biographical",
    "as its copy states; none known here",
    "https://arxiv.org/abs/2205.00806",
    _read,
    note="Columns text, entity1, entity2, relation; strings without offsets. A text is one scope.",
)
PG_FICTION = DataSet(
    "pg_fiction",
    "PG-Fiction",
    "as its copy states; none known here",
    "https://arxiv.org/abs/2606.22606",
    _read,
    note="Columns text, entity1, entity2, relation; strings without offsets. A text is one scope.",
)
