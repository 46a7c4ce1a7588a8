"""What `annotate` writes, so that a run that was cut off at any moment can go on where it stopped.

JSON Lines are appended one whole line at a time, so the file itself says how far the run came. A DocBin is one
compressed block that cannot be appended to: it is written as numbered shards, which are joined at the end.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from spacy.tokens import Doc, DocBin
from spacy.util import get_words_and_spaces

from spacy_relx._json import parse_json
from spacy_relx._progress import Progress, append, encode_line, replace_file
from spacy_relx.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from spacy.tokens import Span
    from spacy.vocab import Vocab

    from spacy_relx._inputs import Record

STDOUT = "-"


class Result(NamedTuple):
    """A record and what became of it: its Doc, or the reason why there is none."""

    record: Record
    doc: Doc | None
    error: str | None = None


class Writer(Protocol):
    """Where results go, in the order of the input."""

    n_done: int
    """Documents that an earlier run has written."""

    def last_text(self) -> str | None:
        """Return the text of the last document that an earlier run has written, if that is cheap to know."""

    def write(self, result: Result) -> None:
        """Write one result."""

    def close(self, *, complete: bool) -> None:
        """Bring everything to disk; `complete` says that the input is exhausted."""


class JsonlWriter:
    """JSON Lines in a file, one line a document."""

    def __init__(self, path: Path, progress: Progress, *, attr: str) -> None:
        self.progress, self.attr = progress, attr
        self.n_done, end, self._last = 0, 0, b""
        if path.exists():
            with path.open("rb") as lines:
                for line in lines:
                    if line.endswith(b"\n"):  # a line without its end was being written when the run was cut off
                        self.n_done, end, self._last = self.n_done + 1, end + len(line), line
            os.truncate(path, end)
        # Unbuffered: a line is on its way to the disk as soon as it is written, and in one piece.
        self.file = path.open("ab", buffering=0)
        self.n_written = self.n_done

    def last_text(self) -> str | None:
        """Return the text of the last line."""
        try:
            return str(parse_json(self._last)["text"]) if self._last else None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"The last line of {self.file.name!r} is not what annotate writes ({error!r}). Start anew with "
                "--overwrite."
            ) from error

    def write(self, result: Result) -> None:
        """Append one line."""
        append(self.file, to_line(result, self.attr))
        self.n_written += 1

    def close(self, *, complete: bool) -> None:
        """Close the file."""
        self.file.close()
        self.progress.save(complete=complete, n_docs=self.n_written)


class StdoutWriter:
    """JSON Lines on standard output; there is nothing to continue."""

    n_done = 0

    def __init__(self, *, attr: str) -> None:
        self.attr = attr

    def last_text(self) -> str | None:
        """Return None: nothing was written before."""
        return None

    def write(self, result: Result) -> None:
        """Write one line and flush it, so that a reader at the other end of a pipe has it at once."""
        sys.stdout.buffer.write(to_line(result, self.attr))
        sys.stdout.buffer.flush()

    def close(self, *, complete: bool) -> None:
        """Do nothing: standard output stays open."""


class DocBinWriter:
    """A DocBin, by way of numbered shards of `shard_size` documents."""

    def __init__(self, path: Path, progress: Progress, vocab: Vocab, *, shard_size: int) -> None:
        self.path, self.progress, self.vocab, self.shard_size = path, progress, vocab, shard_size
        # A shard that the progress file does not list was written just before the run was cut off. It is written anew.
        self.sizes: list[int] = []
        for number, size in enumerate(progress.state["shards"]):
            if not self._shard_path(number).exists():
                break
            self.sizes.append(size)
        self.n_done = sum(self.sizes)
        self.shard = DocBin(store_user_data=True)

    def last_text(self) -> str | None:
        """Return the text of the last document of the last shard."""
        if not self.sizes:
            return None
        *_, last = DocBin().from_disk(self._shard_path(len(self.sizes) - 1)).get_docs(self.vocab)
        return str(last.text)

    def write(self, result: Result) -> None:
        """Add one Doc; one that failed is an unannotated Doc with the reason in `user_data["error"]`."""
        doc = result.doc if result.doc is not None else self._unannotated(result.record.text)
        doc.user_data["id"] = result.record.id
        if result.record.meta:
            doc.user_data["meta"] = result.record.meta
        if result.error:
            doc.user_data["error"] = result.error
        # By way of a bin of its own: DocBin.add leaves half a Doc behind when something cannot be serialised.
        self.shard.merge(DocBin(store_user_data=True, docs=[doc]))
        if len(self.shard) >= self.shard_size:
            self._flush()

    def close(self, *, complete: bool) -> None:
        """Write the last shard and, if the input is exhausted, join all of them to the output."""
        self._flush()
        if not complete:
            return
        joined = DocBin(store_user_data=True)
        for number in range(len(self.sizes)):
            joined.merge(DocBin(store_user_data=True).from_disk(self._shard_path(number)))
        replace_file(self.path, joined.to_bytes())
        self.progress.save(complete=True, n_docs=sum(self.sizes))
        shutil.rmtree(self.progress.parts, ignore_errors=True)

    def _flush(self) -> None:
        if len(self.shard):
            self.progress.parts.mkdir(exist_ok=True)
            replace_file(self._shard_path(len(self.sizes)), self.shard.to_bytes())
            self.sizes.append(len(self.shard))
            self.progress.save(shards=self.sizes)
            self.shard = DocBin(store_user_data=True)

    def _shard_path(self, number: int) -> Path:
        return self.progress.parts / f"{number:05}.spacy"

    def _unannotated(self, text: str) -> Doc:
        try:
            words, spaces = get_words_and_spaces(text.split(), text)
            return Doc(self.vocab, words=words, spaces=spaces)
        except ValueError:  # the text has code points that UTF-8 cannot hold, which may be why the Doc failed
            return Doc(self.vocab)


def to_line(result: Result, attr: str) -> bytes:
    """Return one result as a JSON line; a failed one has the reason under `error`, no entities and no relations."""
    record, doc, error = result
    ents = doc.ents if doc is not None else ()
    row = {
        "id": record.id,
        "text": record.text,
        "ents": [entity_row(ent) for ent in ents],
        "relations": [relation.to_dict() for relation in getattr(doc._, attr)] if doc is not None else [],
        "meta": record.meta,
    }
    return encode_line(row if error is None else {**row, "error": error})


def entity_row(ent: Span) -> dict[str, Any]:
    """Return an entity as plain values; ends are exclusive."""
    return {
        "start": ent.start,
        "end": ent.end,
        "start_char": ent.start_char,
        "end_char": ent.end_char,
        "label": ent.label_,
        "text": ent.text,
        **({"kb_id": ent.kb_id_} if ent.kb_id_ else {}),
    }
