"""Takes files and repositories from the Hugging Face Hub, and turns its many refusals into one kind of error.

Only weights in safetensors, settings and tokenizer files are ever asked for: never a pickle, never a program.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spacy_relx.errors import ModelNotFoundError, UnsafeCheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind = Literal["base model", "adapter", "tokenizer"]

#: What is fetched of a repository. Sub-folders (other formats, training checkpoints) are left out.
_WANTED = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.txt", "LICENSE*", "NOTICE*")
_UNWANTED = ("*/*", "consolidated*.safetensors", "optimizer*", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.py")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def fetch_hub(
    repo: str, revision: str | None = None, local_files_only: bool = False, kind: Kind = "base model"
) -> Path:
    """Return the folder of a Hub repository's model, adapter or tokenizer files.

    Args:
        repo: Name on the Hub, `owner/name`.
        revision: Branch, tag or commit; None is the default branch.
        local_files_only: Never ask the network; only what was fetched before is found.
        kind: What it is, for the messages. A tokenizer is fetched without weights.

    Raises:
        ModelNotFoundError: If the repository does not exist, is gated or private, or cannot be reached.
        UnsafeCheckpointError: If the repository holds its weights only as pickles.
    """
    from huggingface_hub import snapshot_download

    unwanted = [*_UNWANTED, "*.safetensors"] if kind == "tokenizer" else [*_UNWANTED]
    with _clear_errors(repo, kind, revision), _quiet():
        folder = Path(
            snapshot_download(
                repo,
                revision=revision,
                local_files_only=local_files_only,
                allow_patterns=[*_WANTED],
                ignore_patterns=unwanted,
            )
        )
    if kind != "tokenizer" and not any(folder.glob("*.safetensors")):
        _refuse_pickles(repo, revision, local_files_only, kind)
    return folder


def fetch_hub_file(repo: str, name: str, revision: str) -> Path:
    """Return one file of a Hub repository.

    Raises:
        ModelNotFoundError: If it does not exist or cannot be reached.
    """
    from huggingface_hub import hf_hub_download

    with _clear_errors(repo, "base model", revision), _quiet():
        return Path(hf_hub_download(repo, name, revision=revision))


def _refuse_pickles(repo: str, revision: str | None, local_files_only: bool, kind: Kind) -> None:
    """Say why a repository without safetensors is of no use, if the Hub tells what else it holds."""
    if local_files_only:
        return
    from huggingface_hub import list_repo_files

    with _clear_errors(repo, kind, revision):
        names = list_repo_files(repo, revision=revision)
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles:
        raise UnsafeCheckpointError(
            f"The {kind} {repo} is stored as a pickle ({pickles[0]}), which can run code when it is read. Expected "
            "safetensors. Ask its owner for them, or convert it on a machine you can throw away with "
            "https://huggingface.co/spaces/safetensors/convert and give the resulting folder."
        )


@contextmanager
def _clear_errors(repo: str, kind: Kind, revision: str | None) -> Iterator[None]:
    from huggingface_hub import errors

    at = f" at revision {revision}" if revision else ""
    page = f"https://huggingface.co/{repo}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise ModelNotFoundError(
            f"The {kind} {repo} is gated: its owner asks you to accept a licence. Accept it at {page}, then run "
            "`hf auth login` (or set HF_TOKEN to a token that may read it) and try again. A copy in a local folder "
            "needs no token."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"There is no {kind} {repo} on the Hugging Face Hub, or it is private. Check the name (owner/name, or an "
            "existing local folder); for a private one run `hf auth login` or set HF_TOKEN."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFoundError(f"The {kind} {repo} has no revision {revision!r}. Look it up at {page}.") from error
    except errors.HFValidationError as error:
        raise ModelNotFoundError(
            f"{repo!r} is neither an existing folder or GGUF file nor a name on the Hugging Face Hub. Expected a "
            f"path that exists, or owner/name."
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise ModelNotFoundError(
            f"The {kind} {repo}{at} is not on this machine and the Hugging Face Hub could not be asked (no network, "
            f"HF_HUB_OFFLINE, or local_files_only). Run `hf download {repo}` where there is a network, or give a "
            "local folder."
        ) from error
    except errors.EntryNotFoundError as error:
        raise ModelNotFoundError(f"The {kind} {repo}{at} lacks a file that was asked for: {error}") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        hint = "Run `hf auth login` or set HF_TOKEN." if status in (401, 403) else "Try again later."
        raise ModelNotFoundError(f"The Hugging Face Hub refused {repo}{at} (status {status}). {hint}") from error
    except OSError as error:
        raise ModelNotFoundError(
            f"The {kind} {repo}{at} could not be fetched from the Hugging Face Hub: {error}. Check the network and "
            "the disk, or give a local folder."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the Hub's progress bars and its notices of retries for the block; an error is raised, not printed."""
    from importlib import import_module

    utils: Any = import_module("huggingface_hub.utils")
    log = logging.getLogger("huggingface_hub")
    level = log.level
    # Where the user has decided about the bars, switching them would only bring a warning.
    switch = "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ and not utils.are_progress_bars_disabled()
    if switch:
        utils.disable_progress_bars()
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
        if switch:
            utils.enable_progress_bars()
