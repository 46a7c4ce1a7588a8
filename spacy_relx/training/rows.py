"""Training rows: questions with their right answers, in groups that share everything before the question.

A group is one line of a JSONL file, so that rows can be made on one machine and trained on at another: an object with
`turns` ([role, content] before the question), `rows` ([question, answer]) and `labels` (the answers to choose from).

Owns the format. No torch, no spaCy.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spacy_relx._json import parse_json
from spacy_relx.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Questions that share the turns before them.

    Attributes:
        turns: (role, content) of every turn before the question: system text and demonstrations.
        rows: (user turn, right answer) of each question.
        labels: The answers that were to choose from, where they are known; what a development set is ranked with.
    """

    turns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, str], ...]
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values from which `from_dict` makes an equal group."""
        return {"turns": self.turns, "rows": self.rows, "labels": self.labels}

    @classmethod
    def from_dict(cls, data: Any, where: str = "a group of rows") -> RowGroup:
        """Make a group from what `to_dict` returned.

        Args:
            data: The plain values.
            where: File and line, for the message.

        Raises:
            DataError: If the values are of another form.
        """
        if not isinstance(data, dict) or not set(data) <= {"turns", "rows", "labels"} or not data.get("rows"):
            raise DataError(
                f"{where} is {_short(data)}. Expected an object with turns, rows (at least one) and labels."
            )
        turns = _pairs(data.get("turns", ()), f"{where}: turns", "[role, content]")
        rows = _pairs(data["rows"], f"{where}: rows", "[question, answer]")
        labels = data.get("labels", ())
        if not isinstance(labels, (list, tuple)) or not all(isinstance(label, str) for label in labels):
            raise DataError(f"{where}: labels is {_short(labels)}. Expected a list of strings.")
        for role, _ in turns:
            if role not in _ROLES:
                raise DataError(f"{where}: a turn is by {role!r}. Expected one of {', '.join(_ROLES)}.")
        for _, answer in rows:
            if not answer.strip():
                raise DataError(f"{where}: an answer is empty. Expected the label that the model is to say.")
            if labels and answer not in labels:
                raise DataError(f"{where}: the answer {answer!r} is not among the labels. Expected one of them.")
        return cls(turns, rows, tuple(labels))


def read_rows(path: Path) -> Iterator[RowGroup]:
    """Read groups of rows from a JSONL file.

    Raises:
        DataError: If the file does not exist or a line is not a group; the message names file and line.
    """
    if not path.is_file():
        raise DataError(f"{str(path)!r} does not exist. Expected a JSONL file of rows.")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                data = parse_json(line)
            except ValueError as error:  # UnicodeDecodeError among them
                raise DataError(f"{path}:{number} is not JSON: {error}.") from error
            yield RowGroup.from_dict(data, f"{path}:{number}")


def write_rows(path: Path, groups: Iterable[RowGroup]) -> int:
    """Write groups of rows to a JSONL file and return the number of rows."""
    n_rows = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for group in groups:
            file.write(json.dumps(group.to_dict(), ensure_ascii=False) + "\n")
            n_rows += len(group)
    return n_rows


def hash_rows(groups: Iterable[RowGroup]) -> str:
    """The SHA-256 of some groups, which says whether a run that goes on reads the rows it began with."""
    digest = hashlib.sha256()
    for group in groups:
        digest.update(json.dumps(group.to_dict(), ensure_ascii=False, sort_keys=True).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _pairs(value: Any, where: str, form: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, (list, tuple)):
        raise DataError(f"{where} is {_short(value)}. Expected a list of {form}.")
    for pair in value:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise DataError(f"{where} holds {_short(pair)}. Expected {form}, two strings.")
    return tuple((pair[0], pair[1]) for pair in value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
