"""Folders that are either the old ones or the new ones, whatever happens while they are written."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from spacy_relx.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


@contextmanager
def replaced_folder(folder: Path, names: Collection[str]) -> Iterator[Path]:
    """Write a folder beside the old one, and put it in its place when it is whole.

    Args:
        folder: The folder.
        names: The files that will be in it. An old folder with others is somebody's own, and is not touched.

    Yields:
        The new folder, empty.

    Raises:
        TrainingError: If it cannot be written, for example because the disk is full, or holds other files; the old one
            is then intact.
    """
    new: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        restore(folder)
        strange = sorted(path.name for path in folder.iterdir() if path.name not in names) if folder.exists() else []
        if strange:
            raise TrainingError(
                f"{folder} holds {strange[0]!r}, which would be lost. Expected a new folder, an empty one, or one that "
                f"holds only {', '.join(sorted(names))}."
            )
        new = Path(tempfile.mkdtemp(prefix=_half(folder), dir=folder.parent))
        yield new
        for path in new.iterdir():
            path.chmod(0o644)  # safetensors makes files that only their owner may read
            with path.open("rb") as file:
                os.fsync(file.fileno())
        new.chmod(0o755)
        if folder.exists():
            folder.rename(_old(folder))
        new.rename(folder)
        shutil.rmtree(_old(folder), ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{folder} cannot be written: {error}. What was saved there before is as it was. Free some space or give "
            "another folder, and start again: training goes on from the last checkpoint."
        ) from error
    finally:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)


def restore(folder: Path) -> None:
    """Mend what a process left that was killed while it wrote: bring back the old folder, drop a half-written one."""
    old = _old(folder)
    if old.exists():
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(folder)
    for half in folder.parent.glob(f"{_half(folder)}*"):
        shutil.rmtree(half, ignore_errors=True)


def _half(folder: Path) -> str:
    """How the names of half-written folders begin."""
    return f".{folder.name}.new-"


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}-old")
