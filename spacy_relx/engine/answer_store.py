"""Answers kept on disk: bytes by key, in one file that processes share and that stays within a size. No torch.

The file is SQLite's, with a write-ahead log: readers do not wait, writers take turns, and a process that is killed
leaves a whole file behind. Nothing in it is code, and every value has a checksum. A cache is a help that nobody
depends on, so whatever goes wrong with the file is said once, and from then on nothing is found and nothing is kept.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
import warnings
import weakref
from typing import TYPE_CHECKING, TypeVar

from spacy_relx.errors import RelxWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

#: Changes with the tables below, so that versions which keep answers differently do not meet in one file.
FILE_NAME = "answers-1.sqlite3"

#: Seconds to wait for other processes.
_PATIENCE = 30.0

#: An answer's time of use is written again when it is older than this, in nanoseconds: reading then hardly ever writes.
_TOUCH_AFTER = 3600 * 10**9

#: Bytes that an entry takes beside its value: the key, twice, and what the tables need to find it.
_ENTRY_BYTES = 100

#: Share of the size that is left when entries were dropped, so that not every writer has to drop some.
_FULL_AFTER_DROPPING = 0.9

_KEYS_A_QUERY = 500  # SQLite has an upper limit of parameters, 999 in old versions
_CHECKSUM_BYTES = 8

_TABLES = f"""
CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, value BLOB NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answers_by_use ON answers (used);
CREATE TABLE IF NOT EXISTS size (id INTEGER PRIMARY KEY CHECK (id = 1), n_bytes INTEGER NOT NULL);
INSERT OR IGNORE INTO size VALUES (1, 0);
CREATE TRIGGER IF NOT EXISTS answer_comes AFTER INSERT ON answers
    BEGIN UPDATE size SET n_bytes = n_bytes + length(NEW.value) + {_ENTRY_BYTES}; END;
CREATE TRIGGER IF NOT EXISTS answer_goes AFTER DELETE ON answers
    BEGIN UPDATE size SET n_bytes = n_bytes - length(OLD.value) - {_ENTRY_BYTES}; END;
"""

#: Connections that came with a fork. SQLite forbids to use them in the child, and closing is a use.
_INHERITED: list[sqlite3.Connection] = []

_T = TypeVar("_T")


class AnswerStore:
    """A bounded table of bytes by key; the file is opened at the first use.

    Args:
        folder: Where the file is, or will be.
        max_bytes: Size past which the entries that were used longest ago are dropped.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.path = folder / FILE_NAME
        self.max_bytes = max_bytes
        self.is_usable = True
        self._connection: sqlite3.Connection | None = None
        self._owner = 0  # the process that opened the connection
        self._lock = threading.Lock()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The values of those keys that have one."""
        return self._attempt(lambda connection: self._read(connection, keys), {})

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Keep some values; a key that has one already keeps that."""
        self._attempt(lambda connection: self._write(connection, values), None)

    def _attempt(self, action: Callable[[sqlite3.Connection], _T], otherwise: _T) -> _T:
        with self._lock:
            if not self.is_usable:
                return otherwise
            try:
                return action(self._connect())
            except (sqlite3.Error, OSError) as error:
                self.is_usable = False
                reason = str(error)
        warnings.warn(
            f"The answer cache {self.path} cannot be used ({reason}), so answers are computed anew and not kept. Give "
            "a `path` on a local disk that can be written, or remove the file if it is damaged.",
            RelxWarning,
            stacklevel=4,
        )
        return otherwise

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None and self._owner != os.getpid():
            _INHERITED.append(self._connection)
            self._connection = None
        if self._connection is None:
            from filelock import FileLock

            self.path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite does not wait where two processes make the same file.
            with FileLock(self.path.with_suffix(".lock"), timeout=_PATIENCE):
                connection = sqlite3.connect(
                    self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
                )
                # Closes it with this object, or with the process, or when it turns out to be of no use.
                weakref.finalize(self, _close, connection, os.getpid())
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")  # the last answers may be lost with the power
                connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")
            self._connection, self._owner = connection, os.getpid()
        return self._connection

    def _read(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        stale: list[tuple[int, bytes]] = []
        damaged: list[tuple[bytes]] = []
        now = time.time_ns()
        for start in range(0, len(keys), _KEYS_A_QUERY):
            part = keys[start : start + _KEYS_A_QUERY]
            marks = ",".join("?" * len(part))
            # Cast, because a file may hold anything.
            columns = "key, CAST(value AS BLOB), CAST(used AS INTEGER)"
            query = f"SELECT {columns} FROM answers WHERE key IN ({marks})"
            for key, sealed, used in connection.execute(query, part):
                value = sealed[_CHECKSUM_BYTES:]
                if sealed != _seal(key, value):
                    damaged.append((key,))
                    continue
                found[key] = value
                if now - used > _TOUCH_AFTER:
                    stale.append((now, key))
        if stale or damaged:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("UPDATE answers SET used = ? WHERE key = ?", stale)
                connection.executemany("DELETE FROM answers WHERE key = ?", damaged)
        return found

    def _write(self, connection: sqlite3.Connection, values: Mapping[bytes, bytes]) -> None:
        now = time.time_ns()
        rows = [(key, _seal(key, value), now) for key, value in values.items()]
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", rows)
            (n_bytes,) = connection.execute("SELECT n_bytes FROM size").fetchone()
            if n_bytes > self.max_bytes:
                dropped: list[tuple[bytes]] = []
                for key, size in connection.execute("SELECT key, length(value) FROM answers ORDER BY used"):
                    if n_bytes <= self.max_bytes * _FULL_AFTER_DROPPING:
                        break
                    n_bytes -= size + _ENTRY_BYTES
                    dropped.append((key,))
                connection.executemany("DELETE FROM answers WHERE key = ?", dropped)


def _seal(key: bytes, value: bytes) -> bytes:
    """A value behind a checksum that ties it to its key."""
    return hashlib.sha256(key + value).digest()[:_CHECKSUM_BYTES] + value


def _close(connection: sqlite3.Connection, owner: int) -> None:
    if os.getpid() == owner:
        connection.close()
