"""The files beside an output of `annotate`: what it belongs to and how far it is, and which documents failed."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from spacy_relx._json import parse_json
from spacy_relx.errors import DataError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO

    from filelock import BaseFileLock


def lock_output(output: Path, name: str) -> BaseFileLock:
    """Take the lock of an output, which need not be there yet.

    Args:
        output: The output.
        name: What the user calls it.

    Raises:
        DataError: If another run is writing it.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output.with_name(output.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DataError(f"Another run is writing {name!r}. Wait for it, or choose another output.") from error
    return lock


@contextmanager
def only_run(output: Path, name: str) -> Iterator[None]:
    """Be the only run that writes an output, for the block; see `lock_output`."""
    lock = lock_output(output, name)
    try:
        yield
    finally:
        # Unlinked while it is held: nobody waits for it, as every run gives up at once when it is taken.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


class Progress:
    """The file beside an output that says what the output belongs to and how far it is.

    Attributes:
        state: Its content.
        parts: The folder of the shards of a .spacy output.
        is_complete: Whether there is nothing left to do.

    Raises:
        DataError: If there is an output that this run must not go on with.
    """

    def __init__(self, output: Path, identity: dict[str, Any], *, resume: bool, overwrite: bool) -> None:
        self.path = output.with_name(output.name + ".progress.json")
        self.parts = output.with_name(output.name + ".parts")
        self.state: dict[str, Any] = {**identity, "complete": False, "n_docs": 0, "shards": []}
        if overwrite:
            shutil.rmtree(self.parts, ignore_errors=True)
            for stale in (output, self.path, error_path(output)):
                stale.unlink(missing_ok=True)
        elif output.exists() or self.path.exists():
            if not resume or not self.path.exists():
                raise DataError(
                    f"The output {str(output)!r} exists and is not continued. Choose another, or replace it with "
                    "--overwrite."
                )
            self.state = self._read(identity)
        self.is_complete = bool(self.state["complete"]) and output.exists()
        if self.is_complete:
            shutil.rmtree(self.parts, ignore_errors=True)
        elif self.state["complete"]:  # somebody took the output away
            self.state |= {"complete": False, "n_docs": 0, "shards": []}
        self.save()

    def save(self, **changes: Any) -> None:
        """Update the file in one step, so that it is never half written."""
        self.state |= changes
        replace_file(self.path, json.dumps(self.state, indent=1).encode())

    def _read(self, identity: dict[str, Any]) -> dict[str, Any]:
        try:
            state = parse_json(self.path.read_bytes())
            _check_state(state)
        except ValueError as error:
            raise DataError(f"{str(self.path)!r} cannot be read: {error}. Start anew with --overwrite.") from error
        # Through JSON, so that tuples and lists are equal.
        wanted = json.loads(json.dumps(identity))
        changed = [
            f"{part} {key} " + ("has changed" if _is_digest(new) else f"was {old!r}, is {new!r}")
            for part in wanted
            for key in sorted({*state[part], *wanted[part]})
            if (old := state[part].get(key)) != (new := wanted[part].get(key))
        ]
        if changed:
            raise DataError(
                "The output was begun with another input or other options, so it cannot be continued "
                f"({'; '.join(changed)}). Run with what it was begun with, or start anew with --overwrite."
            )
        return dict(state)


def _check_state(state: Any) -> None:
    """Raise a ValueError if the content of a progress file is not what `Progress.save` writes."""
    forms = {"input": dict, "options": dict, "complete": bool, "n_docs": int, "shards": list}
    for key, form in forms.items():
        if not isinstance(state, dict) or not isinstance(state.get(key), form):
            raise ValueError(f"it has no usable {key!r}")
    if not all(isinstance(size, int) and size > 0 for size in state["shards"]):
        raise ValueError("its 'shards' are not numbers of documents")


def _is_digest(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and len(value) == 64)


class ErrorLog:
    """`OUTPUT.errors.jsonl`: a line {index, id, error} for each document that failed, if any did."""

    def __init__(self, path: Path | None, n_done: int) -> None:
        self.path, self.n_failed = path, 0
        if path is None or not path.exists():
            return
        # The log is written before the output, so it may know more than the output does.
        lines = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        try:
            kept = [line for line in lines if parse_json(line)["index"] < n_done]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{str(path)!r} cannot be read: {error!r}. Start anew with --overwrite.") from error
        self.n_failed = len(kept)
        replace_file(path, b"".join(kept))

    @property
    def listing(self) -> Path | None:
        """The file, if it lists a failure."""
        return self.path if self.n_failed else None

    def add(self, index: int, record_id: Any, error: str) -> None:
        """Note one failure."""
        self.n_failed += 1
        if self.path is not None:
            with self.path.open("ab", buffering=0) as file:
                append(file, encode_line({"index": index, "id": record_id, "error": error}))


def error_path(output: Path) -> Path:
    """Return where the failures of a run that writes `output` are listed."""
    return output.with_name(output.name + ".errors.jsonl")


def encode_line(row: dict[str, Any]) -> bytes:
    """Return an object as a JSON line; NaN and the infinities, for which JSON has no form, become null."""
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(json.loads(json.dumps(row), parse_constant=lambda name: None), ensure_ascii=False)
    # A lone surrogate, which UTF-8 cannot hold, becomes the JSON escape that it came from.
    return f"{text}\n".encode("utf8", "backslashreplace")


def replace_file(path: Path, data: bytes) -> None:
    """Write a file in one step: a reader sees the old content or the new, never a part."""
    scratch = path.with_name(path.name + ".tmp")
    with _clear_errors(path):
        try:
            scratch.write_bytes(data)
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)


def append(file: FileIO, data: bytes) -> None:
    """Append all of some bytes to an unbuffered file; where a disk is full, the system takes a part and says so."""
    with _clear_errors(Path(file.name)):
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{str(path)!r} cannot be written: {error.strerror or error}. What was written before is kept: free some "
            "space or mend the disk, and give the same command again to go on."
        ) from error
