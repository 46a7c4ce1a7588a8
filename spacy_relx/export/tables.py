"""Relations as tables: CSV, TSV, JSON Lines and Parquet, written row by row.

Text stays as it is, quotes and line breaks included: the formats have their ways to hold them. A spreadsheet takes a
cell that begins with = + - @ for a formula, though, some also where these are of full width; `guard_formulas` is for
tables that are opened in one.
"""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from spacy.util import minibatch

from spacy_relx.export.characters import encodable
from spacy_relx.export.triples import columns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spacy_relx.export.triples import Triple

#: What makes a spreadsheet read a cell as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_ROW_GROUP = 20_000


def write_csv(
    rows: Iterable[Triple],
    row_type: type[Triple],
    file: TextIO,
    *,
    delimiter: str = ",",
    guard_formulas: bool = False,
) -> None:
    """Write a table with a header; RFC 4180 but for the line ends, which are line feeds.

    Args:
        rows: What to write.
        row_type: Their type, which has the columns.
        file: Where to; a file of the disk should be opened with newline="".
        delimiter: What stands between two cells.
        guard_formulas: Whether to put an apostrophe before text that a spreadsheet would run as a formula. What reads
            the table then has to take it away again.
    """
    names = list(columns(row_type))
    # All text in quotes: left to itself, the module does not quote a carriage return, which ends a line for readers.
    writer = csv.DictWriter(file, names, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    for row in rows:
        values = asdict(row)
        for name, value in values.items():
            if isinstance(value, str):
                guard = guard_formulas and value.startswith(_FORMULA)
                values[name] = encodable(f"'{value}" if guard else value)
        writer.writerow(values)


def write_jsonl(rows: Iterable[Triple], row_type: type[Triple], file: TextIO) -> None:
    """Write an object a line, its keys in the order of the columns."""
    names = list(columns(row_type))
    for row in rows:
        line = json.dumps({name: getattr(row, name) for name in names}, ensure_ascii=False)
        file.write(encodable(line) + "\n")


def write_parquet(rows: Iterable[Triple], row_type: type[Triple], file: BinaryIO) -> None:
    """Write a Parquet file, in groups of rows, so that a large table is never held as a whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    schema = pa.schema([pa.field(name, types[kind], nullable=False) for name, kind in columns(row_type).items()])
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in minibatch(rows, _ROW_GROUP):
            writer.write_table(pa.Table.from_pylist([_encodable(row) for row in group], schema))


def _encodable(row: Triple) -> dict[str, Any]:
    return {name: encodable(value) if isinstance(value, str) else value for name, value in asdict(row).items()}
