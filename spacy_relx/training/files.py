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
    from collections.abc import Iterator


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Write a folder beside the old one, and put it in its place when it is whole.

    Args:
        folder: The folder.

    Yields:
        The new folder, empty.

    Raises:
        TrainingError: If it cannot be written, for example because the disk is full; the old one is then intact.
    """
    new: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        restore(folder)
        new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        yield new
        for path in new.iterdir():
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
    """Bring back the old folder where a process was killed between taking it away and putting the new one there."""
    old = _old(folder)
    if old.exists():
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(folder)


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}-old")
