"""From the names in a `ModelSpec` to folders on this machine, and from those to a tokenizer. No weights are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_relx.adapters import packaged_adapter
from spacy_relx.engine.quiet import quiet_transformers
from spacy_relx.engine.spec import EMBEDDED_BASE
from spacy_relx.errors import ModelError, ModelNotFoundError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from spacy_relx.cache import Progress
    from spacy_relx.engine.spec import ModelSpec
    from spacy_relx.hub import Kind

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def resolve_base(spec: ModelSpec, progress: Progress | None = None, *, weights: bool = True) -> Path:
    """Return the local folder of a spec's base model, fetching or converting it where needed.

    Args:
        spec: What to load.
        progress: Told about a fetch or a conversion.
        weights: Whether the weights are wanted, or the tokenizer alone.
    """
    from spacy_relx.fetch import convert_gguf, fetch_embedded_base

    if spec.base == EMBEDDED_BASE:
        return fetch_embedded_base(spec.local_files_only, progress)
    path = Path(spec.base).expanduser()
    if path.suffix.lower() == ".gguf" or path.is_file():
        return convert_gguf(path, progress)
    return _local_or_hub(spec.base, spec.revision, spec.local_files_only, "base model" if weights else "tokenizer")


def resolve_adapter(spec: ModelSpec, *, weights: bool = True) -> Path:
    """Return the local folder of a spec's adapter, fetching it where needed."""
    assert spec.adapter is not None
    if (folder := local_adapter(spec)) is not None:
        return folder
    kind: Kind = "adapter" if weights else "tokenizer"
    return _local_or_hub(spec.adapter, spec.adapter_revision, spec.local_files_only, kind)


def local_adapter(spec: ModelSpec) -> Path | None:
    """The folder of a spec's adapter if it is packaged or a local folder."""
    if spec.adapter is None:
        return None
    folder = packaged_adapter(spec.adapter) or Path(spec.adapter).expanduser()
    return folder if folder.is_dir() else None


def _local_or_hub(name: str, revision: str | None, local_files_only: bool, kind: Kind) -> Path:
    from spacy_relx.fetch import fetch_hub

    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelNotFoundError(f"There is no folder {name} ({kind}). Expected an existing folder or a Hub name.")
    return fetch_hub(name, revision, local_files_only, kind)


def tokenizer_from(base: Path, adapter: Path | None) -> PreTrainedTokenizerBase:
    """Load the adapter's tokenizer if it brings one, else the base's; the chat template likewise."""
    from transformers import AutoTokenizer

    own = adapter is not None and any((adapter / name).is_file() for name in _TOKENIZER_FILES)
    folders = [adapter, base] if own else [base]
    loaded: list[Any] = []
    for folder in folders:
        try:
            with quiet_transformers():
                loaded.append(AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True))
        except (OSError, ValueError, KeyError, ImportError) as error:
            if loaded:
                break  # the base's tokenizer is only wanted for its template
            raise ModelError(f"The tokenizer in {folder} could not be loaded: {error}") from error
        if loaded[0].chat_template:
            break
    tokenizer = loaded[0]
    if not tokenizer.chat_template and len(loaded) > 1:
        tokenizer.chat_template = loaded[1].chat_template
    result: PreTrainedTokenizerBase = tokenizer
    return result
