"""What `annotate` reads: text files, JSON Lines, DocBins, folders of them, and standard input, as one stream."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy.tokens import Doc, DocBin

from spacy_relx._json import parse_json
from spacy_relx.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spacy.language import Language
    from spacy.vocab import Vocab

SUFFIXES = (".txt", ".jsonl", ".spacy")
STDIN = "-"


@dataclass(frozen=True, slots=True)
class Record:
    """One document of the input.

    Attributes:
        id: The input's own id; where that is missing or null, the file's name (and the number of the line or Doc in
            it).
        text: The text; "" where there is none to read.
        meta: Whatever else the input says about the document.
        doc: The Doc, if the input is a DocBin.
        error: Why this document cannot be read, or None.
    """

    id: Any
    text: str
    meta: dict[str, Any] = field(default_factory=dict)
    doc: Doc | None = None
    error: str | None = None

    @property
    def keeps_ents(self) -> bool:
        """Whether entities (or their absence) are annotated, so that no component may set them anew."""
        return self.doc is not None and bool(self.doc.has_annotation("ENT_IOB"))

    def make_doc(self, nlp: Language) -> Doc:
        """Return a new Doc to send through the pipeline; a failed attempt leaves the record as it was."""
        return self.doc.copy() if self.doc is not None else nlp.make_doc(self.text)


@dataclass(frozen=True, slots=True)
class Source:
    """An input and how to read it.

    Attributes:
        path: A .txt, .jsonl or .spacy file, a folder of such files, or "-" for JSON Lines on standard input.
        text_key: The key of the text in a JSON line.
        per_line: Whether each line of a .txt file is a document, not the whole file.
        suffixes: The kinds of files that are read.
    """

    path: str
    text_key: str = "text"
    per_line: bool = False
    suffixes: tuple[str, ...] = SUFFIXES

    def files(self) -> list[tuple[str, Path]]:
        """Return the files in the order they are read, each with the name that ids are made of.

        Raises:
            DataError: If there is nothing that can be read.
        """
        path = Path(self.path)
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix in self.suffixes and p.is_file())
            found = [p for p in found if not any(part.startswith(".") for part in p.relative_to(path).parts)]
            if not found:
                raise DataError(f"The folder {self.path!r} has no file that ends in {', '.join(self.suffixes)}.")
            return [(p.relative_to(path).as_posix(), p) for p in found]
        if not path.is_file():
            raise DataError(f"The input {self.path!r} does not exist. Expected a file, a folder, or - for stdin.")
        if path.suffix not in self.suffixes:
            raise DataError(f"The input {self.path!r} is of no known kind. Expected one of {', '.join(self.suffixes)}.")
        return [(path.name, path)]

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells this input from a changed one: path, size and time of change of each file."""
        if self.path == STDIN:
            return {"path": STDIN}
        stats = [(name, path.stat()) for name, path in self.files()]
        return {
            "path": str(Path(self.path).resolve()),
            "files": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats],
        }

    def count(self) -> int | None:
        """Return how many documents there are, or None where that cannot be known beforehand."""
        if self.path == STDIN:
            return None
        total = 0
        for _, path in self.files():
            if path.suffix == ".spacy":
                total += len(load_docbin(path))
            elif path.suffix == ".jsonl" or self.per_line:
                with path.open("rb") as lines:
                    total += sum(1 for line in lines if line.strip())
            else:
                total += 1
        return total

    def read(self, vocab: Vocab) -> Iterator[Record]:
        """Yield the documents. One that cannot be read is yielded with its `error`, so that counts match."""
        if self.path == STDIN:
            yield from self._lines("stdin", sys.stdin.buffer)
            return
        for name, path in self.files():
            if path.suffix == ".spacy":
                yield from from_docbin(name, path, vocab)
            elif path.suffix == ".jsonl" or self.per_line:
                with path.open("rb") as lines:
                    yield from self._lines(name, lines, plain=path.suffix == ".txt")
            else:
                yield _from_text(name, path.read_bytes())

    def _lines(self, name: str, lines: Any, plain: bool = False) -> Iterator[Record]:
        for number, line in enumerate(lines, 1):
            if line.strip():
                record_id = f"{name}:{number}"
                yield _from_text(record_id, line.strip(b"\r\n")) if plain else self.from_json(record_id, line)

    def from_json(self, record_id: str, line: bytes) -> Record:
        """Return the document of a JSON line."""
        try:
            row = parse_json(line)
        except ValueError as error:
            return Record(record_id, "", error=f"This line is not JSON: {error}.")
        return self.from_row(record_id, row)

    def from_row(self, record_id: str, row: Any) -> Record:
        """Return the document of a row: an object with a text, perhaps an id, and whatever else."""
        if not isinstance(row, Mapping) or not isinstance(row.get(self.text_key), str):
            wanted = f"This line is not an object with the text under {self.text_key!r}"
            keys = ", ".join(map(repr, row)) if isinstance(row, Mapping) else type(row).__name__
            return Record(record_id, "", error=f"{wanted}, but has {keys}; see --text-key.")
        meta = {key: value for key, value in row.items() if key not in (self.text_key, "id")}
        if isinstance(meta.get("meta"), Mapping):
            meta |= meta.pop("meta")
        given = row.get("id")
        is_missing = given is None or given != given  # NaN is what some programs write for nothing
        return Record(record_id if is_missing else given, row[self.text_key], meta)


def _from_text(record_id: str, data: bytes) -> Record:
    try:
        return Record(record_id, data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return Record(record_id, "", error=f"This text is not UTF-8: {error}.")


def load_docbin(path: Path) -> DocBin:
    """Read a DocBin.

    Raises:
        DataError: If the file is something else.
    """
    try:
        return DocBin().from_disk(path)
    except Exception as error:  # zlib, msgpack and numpy each raise what they like
        raise DataError(f"{str(path)!r} is not a DocBin: {error}. Expected what DocBin.to_disk writes.") from error


def read_docbin(path: Path, vocab: Vocab) -> Iterator[Doc]:
    """Yield the Docs of a DocBin.

    Raises:
        DataError: If the file is something else, or is damaged.
    """
    docs = load_docbin(path).get_docs(vocab)
    for number in count(1):
        try:
            doc = next(docs, None)
        except Exception as error:  # what a damaged array makes spaCy raise is not foreseen
            raise DataError(
                f"Document {number} of the DocBin {str(path)!r} is damaged, and those after it are lost: {error}."
            ) from error
        if doc is None:
            return
        yield doc


def from_docbin(name: str, path: Path, vocab: Vocab) -> Iterator[Record]:
    """Yield the documents of a DocBin; `name` is what ids are made of."""
    for number, doc in enumerate(read_docbin(path, vocab), 1):
        meta = doc.user_data.get("meta")
        record_id = doc.user_data.get("id", f"{name}:{number}")
        yield Record(record_id, doc.text, dict(meta) if isinstance(meta, Mapping) else {}, doc)
