"""Turns a GGUF file into a folder that loads in a second: safetensors weights, config, tokenizer.

The weights are written in float32, which holds the values of the quantised file exactly. Where the folder goes and
how it gets there is `spacy_relx.fetch`'s business.
"""

from __future__ import annotations

import struct
import warnings
from typing import TYPE_CHECKING, Any

from spacy_relx.engine.gguf_header import check_counts
from spacy_relx.engine.quiet import quiet_transformers
from spacy_relx.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

GGUF_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DIGIT_SPLITTING = ("smollm",)
#: Byte-level vocabularies in which a whole word is looked up before it is merged from its bytes, as Meta's own
#: tokeniser does. Source: https://github.com/ggml-org/llama.cpp/pull/7193
_WHOLE_WORDS_FIRST = ("llama3", "llama-v3", "llama-bpe")
#: What transformers itself rebuilds, beside the two families above.
_REBUILT_BY_TRANSFORMERS = ("gpt-2", "default", "qwen2", "tekken", "gpt-4o", "llama4", "falcon3", "smaug-bpe")
#: Source: the pre-tokeniser in the `tokenizer.json` that Meta ships with Llama 3.
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def check_magic(path: Path) -> None:
    """Check that a file begins as a GGUF file does.

    Raises:
        ModelError: If it is not a GGUF file, or has a version this package cannot read.
    """
    with path.open("rb") as file:
        head = file.read(8)
    if head[:4] != GGUF_MAGIC:
        raise ModelError(
            f"{path} is not a GGUF file: it begins with {head[:4]!r}. Expected {GGUF_MAGIC!r}. Give the path of a "
            "GGUF file, or the folder of a safetensors checkpoint."
        )
    version = struct.unpack("<I", head[4:8])[0] if len(head) == 8 else None
    if version not in _VERSIONS:
        raise ModelError(
            f"{path} is a GGUF file of version {version}. Expected a little-endian file of version 2 or 3; convert "
            "the model again with a current llama.cpp."
        )


def check_gguf(path: Path) -> None:
    """Check that a GGUF file holds all the tensors it announces.

    Raises:
        ModelError: If it is not a GGUF file, has a version this package cannot read, or is truncated.
    """
    check_magic(path)
    try:
        check_counts(path)
        tensors = _open_reader(path).tensors
        end = max((int(tensor.data_offset) + int(tensor.n_bytes) for tensor in tensors), default=0)
    except Exception as error:  # the reader fails in many ways when the bytes run out
        raise ModelError(_truncated(path, f"its header cannot be read ({error})")) from error
    size = path.stat().st_size
    if not tensors or end > size:
        raise ModelError(_truncated(path, f"it has {size} bytes and its tensors need {end}"))


def convert(path: Path, folder: Path) -> dict[str, Any]:
    """Write the model and the tokenizer of a GGUF file into a folder.

    Args:
        path: The GGUF file, already checked.
        folder: An existing empty folder.

    Returns:
        What is worth recording about the conversion: the versions of the libraries that did it.

    Raises:
        ModelError: If transformers cannot read the file's architecture or tokenizer.
    """
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name, "local_files_only": True}
    try:
        with quiet_transformers():
            model = AutoModelForCausalLM.from_pretrained(
                **source, **_dequantize_argument(), dtype=torch.float32, trust_remote_code=False
            )
            _forget_quantization(model)
            model.save_pretrained(folder, safe_serialization=True)
            del model
            tokenizer = AutoTokenizer.from_pretrained(**source, trust_remote_code=False)
            _mend_pretokenizer(tokenizer, _pretokenizer_name(path), path)
            tokenizer.save_pretrained(folder)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{path} could not be converted: {error}. Expected a GGUF file of a Llama-family model; if the model "
            "exists as a folder of safetensors, give that instead."
        ) from error
    return {"transformers": transformers.__version__, "torch": torch.__version__, "dtype": "float32"}


def _open_reader(path: Path) -> Any:
    from gguf import GGUFReader

    return GGUFReader(path)


def _truncated(path: Path, reason: str) -> str:
    return f"The GGUF file {path} is truncated or damaged: {reason}. Fetch it again."


def _dequantize_argument() -> dict[str, Any]:
    """Ask newer releases of transformers for plain weights; older ones know nothing else."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def _forget_quantization(model: Any) -> None:
    """Remove the marks of the quantised file, which the weights no longer bear and which forbid saving."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False


def _pretokenizer_name(path: Path) -> str | None:
    fields = _open_reader(path).fields
    kind = fields.get("tokenizer.ggml.model")
    if kind is None or kind.contents() != "gpt2":
        return None  # not a byte-level vocabulary: there is no splitting rule to get wrong
    field = fields.get("tokenizer.ggml.pre")
    return "default" if field is None else str(field.contents())


def _mend_pretokenizer(tokenizer: Any, name: str | None, path: Path) -> None:
    """Split text as the vocabulary's merges were learned.

    A GGUF file names its splitting rule and transformers rebuilds most of them, but takes the digit rule of the
    SmolLM vocabularies for plain GPT-2: two newlines before a digit then come out as two tokens, not one.
    """
    from tokenizers import Regex, pre_tokenizers

    if name is None or name in _REBUILT_BY_TRANSFORMERS:
        return
    backend = tokenizer.backend_tokenizer
    if name in _DIGIT_SPLITTING:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    elif name in _WHOLE_WORDS_FIRST:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_LLAMA3_SPLIT), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        backend.model.ignore_merges = True
    else:
        warnings.warn(
            f"The GGUF file {path} splits text by the rule {name!r}, which cannot be checked here; token ids may "
            "differ from the original model's. A folder of safetensors with its own tokenizer.json has no such "
            "doubt.",
            stacklevel=2,
        )
