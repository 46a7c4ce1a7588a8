"""The input as numbered blocks of documents, each of which can be read without those before it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_relx._inputs import Record, Source, from_docbin, load_docbin
from spacy_relx.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spacy.vocab import Vocab

SUFFIXES = (".parquet", ".jsonl", ".spacy")


@dataclass(frozen=True, slots=True)
class Block:
    """Some documents in a row of one file.

    Attributes:
        number: Position in the plan; names the block's output.
        name: The file's name, which ids are made of.
        path: The file.
        start: Where it begins: a byte of a .jsonl file, else the number of documents before it in the file.
        first: Number of its first line, or document, in the file; the first is 1.
        n_docs: Documents.
    """

    number: int
    name: str
    path: str
    start: int
    first: int
    n_docs: int


def plan(source: Source, block_size: int) -> list[Block]:
    """Divide an input into blocks of at most `block_size` documents; the same input gives the same blocks.

    Raises:
        DataError: If there is nothing that can be read.
    """
    found: list[tuple[str, Path, int, int, int]] = []
    for name, path in source.files():
        cut = _cut_lines if path.suffix == ".jsonl" else _cut_table if path.suffix == ".parquet" else _cut_docbin
        found += [(name, path, *place) for place in cut(path, block_size)]
    return [Block(i, name, str(path.resolve()), *place) for i, (name, path, *place) in enumerate(found)]


def read(block: Block, source: Source, vocab: Vocab) -> Iterator[Record]:
    """Yield the documents of a block; one that cannot be read is yielded with its `error`."""
    path = Path(block.path)
    if path.suffix == ".jsonl":
        return _lines(block, source)
    if path.suffix == ".parquet":
        return _rows(block, source)
    return islice(from_docbin(block.name, path, vocab), block.start, block.start + block.n_docs)


def _cut_lines(path: Path, block_size: int) -> Iterator[tuple[int, int, int]]:
    start = at = 0
    first, n_docs = 1, 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                if n_docs == block_size:
                    yield start, first, n_docs
                    n_docs = 0
                if n_docs == 0:
                    start, first = at, number
                n_docs += 1
            at += len(line)
    if n_docs:
        yield start, first, n_docs


def _lines(block: Block, source: Source) -> Iterator[Record]:
    n_left = block.n_docs
    with open(block.path, "rb") as lines:
        lines.seek(block.start)
        for number, line in enumerate(lines, block.first):
            if not n_left:
                return
            if line.strip():
                n_left -= 1
                yield source.from_json(f"{block.name}:{number}", line)


def _cut_table(path: Path, block_size: int) -> Iterator[tuple[int, int, int]]:
    """Blocks do not cross row groups, so that reading one reads one row group."""
    metadata = _open_table(path).metadata
    before = 0
    for group in range(metadata.num_row_groups):
        n_rows = metadata.row_group(group).num_rows
        for at in range(0, n_rows, block_size):
            yield before + at, before + at + 1, min(block_size, n_rows - at)
        before += n_rows


def _rows(block: Block, source: Source) -> Iterator[Record]:
    table = _open_table(Path(block.path))
    before = 0
    for group in range(table.metadata.num_row_groups):
        n_rows = table.metadata.row_group(group).num_rows
        if before <= block.start < before + n_rows:
            rows = _read_group(table, group, block.path).slice(block.start - before, block.n_docs).to_pylist()
            for number, row in enumerate(rows, block.first):
                yield _from_columns(source, f"{block.name}:{number}", row)
            return
        before += n_rows


def _open_table(path: Path) -> Any:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise DataError(f"{str(path)!r} is not a Parquet file: {error}") from error


def _read_group(table: Any, group: int, path: str) -> Any:
    from pyarrow import ArrowException

    try:
        return table.read_row_group(group)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path!r} is damaged: its row group {group} cannot be read ({error}).") from error


def _from_columns(source: Source, record_id: str, row: dict[str, Any]) -> Record:
    """Return the document of a row, whose values JSON may have no form for."""
    text = row.get(source.text_key)
    if isinstance(text, bytes):  # some programs write strings so
        try:
            row = {**row, source.text_key: text.decode()}
        except UnicodeDecodeError as error:
            return Record(record_id, "", error=f"This text is not UTF-8: {error}.")
    return source.from_row(record_id, json.loads(json.dumps(row, default=_plain)))


def _plain(value: Any) -> str:
    return value.decode("utf8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _cut_docbin(path: Path, block_size: int) -> Iterator[tuple[int, int, int]]:
    n_docs = len(load_docbin(path))
    for at in range(0, n_docs, block_size):
        yield at, at + 1, min(block_size, n_docs - at)
