"""The folder in which fetched and converted models are kept, and how files enter it.

An entry is a folder that appears whole or not at all: it is written under a temporary name, flushed to disk and
renamed, and its manifest (sizes and SHA-256 of its files) is the last file written. This module knows nothing of
where files come from (`spacy_relx.fetch`) or what is in them. No torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_relx._json import parse_json
from spacy_relx.errors import ChecksumError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from filelock import BaseFileLock

    #: Told about the steps of a fetch: a sentence, and the fraction done (0..1) or None where it is not known.
    Progress = Callable[[str, float | None], None]

CACHE_VARIABLE = "SPACY_RELX_CACHE"
MANIFEST = "manifest.json"
MANIFEST_FORMAT = 1
_CHUNK = 1 << 20  # bytes read at a time


def cache_dir() -> Path:
    """Return the cache folder: the environment variable `SPACY_RELX_CACHE`, else the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("spacy-relx", appauthor=False))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as lower-case hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def require_sha256(path: Path, expected: str, what: str, advice: str) -> None:
    """Check that a file is the file that was asked for.

    Args:
        path: The file.
        expected: Its SHA-256 in hexadecimal digits.
        what: What the file is, for the message.
        advice: What to do next, for the message.

    Raises:
        ChecksumError: If the file has another SHA-256.
    """
    got = sha256_of(path)
    if got != expected.lower():
        raise ChecksumError(f"{what} ({path}) has SHA-256 {got}. Expected {expected}. {advice}")


def entry_is_complete(folder: Path, *, verify: bool = False) -> bool:
    """Return whether a cache entry holds every file of its manifest.

    Args:
        folder: The entry.
        verify: Read every file and compare its SHA-256; otherwise only sizes are compared, which is instant.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return False
    for name, facts in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != facts["size"]:
            return False
        if verify and sha256_of(path) != facts["sha256"]:
            return False
    return True


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return a cache entry's manifest, or None where there is no readable one."""
    try:
        manifest = parse_json((folder / MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"]
        usable = manifest["format"] == MANIFEST_FORMAT and bool(files)
        usable = usable and all({"size", "sha256"} <= set(facts) for facts in files.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if usable else None


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into one error that names the way out.

    Raises:
        ModelError: If the folder cannot be written (read-only, no permission, disk full).
    """
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"The cache folder {folder} cannot be written: {error.strerror or error}. Set the environment "
            f"variable {CACHE_VARIABLE} to a writable folder with 1 GB free, or fetch the model as a user "
            "who may write there."
        ) from error


@contextmanager
def entry_lock(root: Path, key: str) -> Iterator[None]:
    """Hold the lock of one cache entry, so that two processes do the same work once.

    Raises:
        ModelError: If the lock file cannot be created.
    """
    from filelock import FileLock

    with writable(root):
        folder = root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{key}.lock")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def scratch_folder(root: Path) -> Iterator[Path]:
    """Yield a temporary folder on the cache's own disk; it is gone afterwards.

    A lock beside it says that its owner lives. A process that is killed lets go of the lock, and the next one removes
    the folder; no clock is asked.
    """
    from filelock import FileLock

    with writable(root):
        root.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(root)
        folder = root / f"tmp-{uuid.uuid4().hex}"
        lock = FileLock(_lock_of(folder))
        lock.acquire()  # before the folder is there for others to see
        folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        _remove(folder, lock)


def _remove_leftovers(root: Path) -> None:
    """Remove temporary folders that a process which was killed left behind."""
    from filelock import FileLock, Timeout

    for folder in root.glob("tmp-*"):
        if folder.is_dir():
            lock = FileLock(_lock_of(folder))
            with suppress(Timeout):
                lock.acquire(timeout=0)
                _remove(folder, lock)


def _remove(folder: Path, lock: BaseFileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()
    with suppress(OSError):  # somebody else may have it open, which Windows does not like
        _lock_of(folder).unlink()


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def publish_folder(source: Path, target: Path, facts: dict[str, Any]) -> None:
    """Give a finished folder its manifest and its final name.

    Args:
        source: A folder inside one from `scratch_folder`, whose files are complete.
        target: The entry's folder; what is there already is replaced.
        facts: What else the manifest should say.
    """
    files = {}
    for path in sorted(source.iterdir()):
        flush_to_disk(path)
        path.chmod(0o644)  # a temporary file is private to its maker; a cache may be shared
        files[path.name] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
    manifest = {"format": MANIFEST_FORMAT, **facts, "files": files}
    (source / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    flush_to_disk(source / MANIFEST)
    source.chmod(0o755)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(source.with_name(f"{source.name}-old"))  # goes with the scratch folder, whatever happens
    source.rename(target)


def publish_file(source: Path, target: Path) -> None:
    """Give a finished file on the cache's disk its final name."""
    flush_to_disk(source)
    source.chmod(0o644)
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)


def flush_to_disk(path: Path) -> None:
    """Make the operating system write a file's contents out before anything refers to it."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())
