"""Builds llama.cpp's server, for the tests that ask a real one: `make test-server`.

Its sources come from PyPI, in the source distribution of llama-cpp-python, and are checked by their SHA-256. It takes
about eight minutes of one processor, a C++ compiler and CMake, and leaves one program in this package's cache folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from spacy_relx.cache import cache_dir, sha256_of

SOURCE = "llama-cpp-python==0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
PROGRAM = "llama-server.exe" if os.name == "nt" else "llama-server"

OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "CMAKE_CXX_FLAGS_RELEASE": "-O1",  # the products that take the time are in C
    "CMAKE_C_FLAGS_RELEASE": "-O3",
    "BUILD_SHARED_LIBS": "OFF",
    "GGML_OPENMP": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",  # it would be fetched from somewhere else
}


def main(jobs: Annotated[int, typer.Option(help="Compilers at a time.")] = 1) -> None:
    """Build the server, unless it is there, and print where it is."""
    target = cache_dir() / "tests" / f"llama-server-{SHA256[:12]}" / PROGRAM
    if not target.is_file():
        missing = [name for name in ("cmake", "c++") if shutil.which(name) is None]
        if missing:
            sys.exit(f"There is no {' and no '.join(missing)}. Install CMake (`pip install cmake`) and a C++ compiler.")
        with tempfile.TemporaryDirectory() as folder:
            built = _build(_sources(Path(folder)), Path(folder) / "build", jobs)
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f"{target.name}.part")
            shutil.copy(built, part)
            os.replace(part, target)
    typer.echo(target)


def _sources(folder: Path) -> Path:
    """Fetch and unpack the sources."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-binary", SOURCE.partition("==")[0], "--dest", folder, SOURCE], check=True)
    (archive,) = folder.glob("*.tar.gz")
    if sha256_of(archive) != SHA256:
        sys.exit(f"{archive.name} has the SHA-256 {sha256_of(archive)}. Expected {SHA256}: it is another file.")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz") / "vendor" / "llama.cpp"


def _build(sources: Path, folder: Path, jobs: int) -> Path:
    options = [f"-D{name}={value}" for name, value in OPTIONS.items()]
    build = ["--build", folder, "--target", "llama-server", "--parallel", str(jobs)]
    for arguments in (["-S", sources, "-B", folder, *options], build):
        subprocess.run(["cmake", *arguments], check=True, stdout=sys.stderr)  # this script says one thing: where it is
    return folder / "bin" / PROGRAM


if __name__ == "__main__":
    typer.run(main)
