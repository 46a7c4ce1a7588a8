"""Environments of rivals: made on demand, on top of the one that runs, so that torch and transformers are the same."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import TYPE_CHECKING

from rivals.remote import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

_MARK = "installed.txt"


def python_of(name: str, requirements: Sequence[str], folder: Path, *, build: bool) -> Path:
    """The interpreter of a rival's environment.

    Args:
        name: The rival's.
        requirements: What it needs; nothing means the environment that runs.
        folder: Where environments are kept.
        build: Whether one that is not there may be made, which takes minutes where something is compiled.

    Raises:
        Unavailable: If it is not there and may not be made, or cannot.
    """
    if not requirements:
        return Path(sys.executable)
    place = folder / name.replace(".", "-")
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    mark = place / _MARK
    wanted = "\n".join(requirements)
    if mark.is_file() and mark.read_text(encoding="utf8") == wanted:
        return python
    if not build:
        raise Unavailable(f"{name}: needs {', '.join(requirements)} in an environment of its own; --build makes it.")
    try:
        venv.create(place, with_pip=True, clear=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"{name}: no environment could be made in {place}: {error}") from error
    _borrow(place)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{name}: {', '.join(requirements)} could not be installed: {done.stderr.strip()[-800:]}")
    mark.write_text(wanted, encoding="utf8")
    return python


def _borrow(place: Path) -> None:
    """Let an environment see the packages of this one behind its own."""
    own = Path(sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)}))
    borrowed = sysconfig.get_path("purelib")
    # `addsitedir` and not the bare folder, so that what is installed there in editable form is seen too.
    (own / "borrowed.pth").write_text(f"import site; site.addsitedir({borrowed!r})\n", encoding="utf8")
