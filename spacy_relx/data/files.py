"""Files of records, each record with its place: JSON arrays, JSON Lines, CSV and lines of text.

Records come one at a time, and what is not readable comes as a `Problem` with file and line.
"""

from __future__ import annotations

import csv
import json
import re
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from spacy_relx._json import parse_json
from spacy_relx.data.base import Problem
from spacy_relx.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Records: TypeAlias = "Iterator[tuple[str, Any] | Problem]"

_SPACE = re.compile(r"\s*")


def read_text(path: Path) -> str:
    """Read a whole file; every line end is read as a newline.

    Raises:
        DataError: The file is missing or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(
            f"{str(path)!r} cannot be read: {error.strerror or error}. Expected a file; check the path."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{str(path)!r} is not UTF-8 text: {error}. Save it as UTF-8.") from error


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """Give (place, line) for every line that is not blank, without its line end."""
    # Not str.splitlines(): a text may hold U+2028 or U+0085, which are no ends of lines in these formats.
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield f"{path}:{number}", line


def json_lines(path: Path) -> Records:
    """Give (place, record) for every line of a JSON Lines file."""
    for place, line in lines(path):
        try:
            yield place, parse_json(line)
        except ValueError as error:
            yield Problem(place, "not JSON", str(error))


def json_array(path: Path) -> Records:
    """Give (place, record) for every element of a JSON array, with the line on which it begins."""
    text = read_text(path)
    decoder = json.JSONDecoder()
    at = _skip_space(text, 0)
    if not text.startswith("[", at):
        raise DataError(f"{path}:1: the file begins with {text[at : at + 10]!r}. Expected a JSON array of records.")
    at, line, counted, n = _skip_space(text, at + 1), 1, 0, 0
    while not text.startswith("]", at):
        line, counted, n = line + text.count("\n", counted, at), at, n + 1
        place = f"{path}:{line} (record {n})"
        try:
            record, at = decoder.raw_decode(text, at)
            at = _skip_space(text, at)
            if not text.startswith((",", "]"), at):
                raise ValueError(f"expected a comma after the record, found {text[at : at + 10]!r}")
        except (ValueError, RecursionError) as error:
            yield Problem(place, "not JSON; the rest of the file is lost", str(error))
            return
        yield place, record
        if text.startswith(",", at):
            at = _skip_space(text, at + 1)


def json_records(path: Path) -> Records:
    """Give the records of a JSON array or of a JSON Lines file, whichever it is."""
    text = read_text(path)
    return json_array(path) if text.startswith("[", _skip_space(text, 0)) else json_lines(path)


def table(path: Path, columns: tuple[str, ...]) -> Records:
    """Give (place, record) for the rows of a .jsonl, .csv, .tsv or .parquet file.

    Args:
        path: The file; its name says what it is.
        columns: Columns that every row must have.

    Raises:
        DataError: The file is of another kind, has other columns, or is Parquet and no library can read it.
    """
    if path.suffix in (".jsonl", ".json"):
        yield from json_records(path)
    elif path.suffix in (".csv", ".tsv"):
        yield from _csv(path, columns)
    elif path.suffix == ".parquet":
        yield from _parquet(path, columns)
    else:
        raise DataError(f"{str(path)!r} is of no known kind. Expected a .jsonl, .json, .csv, .tsv or .parquet file.")


def _csv(path: Path, columns: tuple[str, ...]) -> Records:
    read_text(path)  # for its errors
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
        try:
            found = rows.fieldnames or ()
        except csv.Error as error:
            raise DataError(f"{path}:1 is not CSV: {error}. Expected the columns {', '.join(columns)}.") from error
        _check_columns(path, columns, found)
        while True:
            first = rows.line_num + 1  # a quoted value may run over several lines
            try:
                record = next(rows, None)
            except csv.Error as error:
                yield Problem(f"{path}:{first}", "not CSV", str(error))
                continue
            if record is None:
                return
            if None in record or None in record.values():
                yield Problem(f"{path}:{first}", "another number of values than columns", ", ".join(columns))
                continue
            yield f"{path}:{first}", record


def _parquet(path: Path, columns: tuple[str, ...]) -> Records:
    if not path.is_file():
        raise DataError(f"{str(path)!r} does not exist. Expected a file; check the path.")
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as error:
        raise DataError(
            f"{str(path)!r} is a Parquet file, which needs pyarrow. Run `pip install pyarrow`, or save the data as "
            ".jsonl or .csv."
        ) from error
    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's errors derive from these
        raise DataError(f"{str(path)!r} cannot be read as Parquet: {error}.") from error
    with file:
        _check_columns(path, columns, file.schema_arrow.names)
        n = 0
        for batch in file.iter_batches(columns=list(columns)):
            for record in batch.to_pylist():
                n += 1
                yield f"{path} (row {n})", record


def _check_columns(path: Path, columns: tuple[str, ...], found: Any) -> None:
    missing = [name for name in columns if name not in found]
    if missing:
        raise DataError(
            f"{path}:1 has no column {missing[0]!r}. Expected the columns {', '.join(columns)}; "
            f"found {', '.join(found)}."
        )


def _skip_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
