"""Looks at a checkpoint before anything heavy reads it: which files it has, whether they are whole, what they hold.

Only the header of a safetensors file and a few samples of its values are read, with numpy. No torch.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spacy_relx._json import parse_json
from spacy_relx.errors import ModelError, UnsafeCheckpointError

if TYPE_CHECKING:
    from pathlib import Path

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_MAX_HEADER = 100 * 2**20  # bytes; the format's own limit
_WINDOW = 1024  # values sampled at the start, in the middle and at the end of each tensor
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_NUMPY_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor is in a safetensors file.

    Attributes:
        dtype: Number format as the file spells it (`F32`, `BF16`, …).
        shape: Its dimensions.
        start: Offset of its first byte in the file.
        end: Offset one past its last byte.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a safetensors file: its tensors by name, and the free text its writer left."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file and check that the file is as long as the header says.

    Raises:
        ModelError: If the file is not safetensors, or is truncated.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_MAX_HEADER, size):
            raise ModelError(
                f"{path} is not a safetensors file (a header of {length} bytes in {size}). Fetch it again."
            )
        raw = file.read(length)
    try:
        entries = parse_json(raw)
        metadata = {str(k): str(v) for k, v in (entries.pop("__metadata__", None) or {}).items()}
        tensors = {name: _tensor_info(facts, 8 + length) for name, facts in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(f"{path} has a damaged safetensors header ({error!r}). Fetch it again.") from error
    end = max((tensor.end for tensor in tensors.values()), default=8 + length)
    if end != size:
        raise ModelError(f"{path} has {size} bytes. Expected {end} from its header; fetch it again.")
    return Header(tensors, metadata)


def _tensor_info(facts: Any, first: int) -> TensorInfo:
    """Check what a header says of one tensor; `first` is the offset of the file's first value."""
    dtype, shape, (start, end) = facts["dtype"], tuple(facts["shape"]), facts["data_offsets"]
    if not isinstance(dtype, str) or not all(_is_count(number) for number in (*shape, start, end)):
        raise ValueError(f"a tensor of the type {dtype!r} and the shape {list(shape)} at {start!r}..{end!r}")
    size = _SIZES.get(dtype)
    if end < start or (size is not None and end - start != size * math.prod(shape)):
        raise ValueError(f"{end - start} bytes for a tensor of the type {dtype} and the shape {list(shape)}")
    return TensorInfo(dtype, shape, first + start, first + end)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelError: If the file is missing, or is not a JSON object.
    """
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"There is no {path.name} in {path.parent}. Expected a transformers checkpoint.") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}. Fetch it again.") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds a {type(value).__name__}. Expected a JSON object.")
    return value


def refuse_pickles(folder: Path, what: str) -> None:
    """Raise if the weights of a folder are pickles; called where no safetensors were found.

    Raises:
        UnsafeCheckpointError: If there is a pickle.
    """
    for pattern in PICKLES:
        for path in sorted(folder.glob(pattern)):
            raise UnsafeCheckpointError(
                f"The {what} in {folder} is stored as a pickle ({path.name}), which can run code when it is read. "
                "Expected safetensors. Ask its owner for them, or, on a machine you can throw away, load it there "
                "with transformers or peft and call save_pretrained(FOLDER), which writes safetensors."
            )


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a base model's folder.

    Raises:
        UnsafeCheckpointError: If the folder holds its weights as pickles only.
        ModelError: If it is an adapter, holds no weights, or lacks a part of them.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        parts = read_json(folder / INDEX).get("weight_map", {})
        if not isinstance(parts, dict):
            raise ModelError(f"{folder / INDEX} has a weight_map that is no JSON object. Fetch the model again.")
        names = sorted({str(name) for name in parts.values()})
        for name in names:
            if "/" in name or "\\" in name or not name.endswith(".safetensors"):
                raise UnsafeCheckpointError(f"{folder / INDEX} names {name!r}. Expected safetensors files beside it.")
            if not (folder / name).is_file():
                raise ModelError(f"{folder} lacks {name}, a part of the weights. Fetch the model again.")
        if names:
            return [folder / name for name in names]
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder} is an adapter, not a base model. Give it as `adapter`, and as `base` the model named in its "
            "adapter_config.json."
        )
    refuse_pickles(folder, "model")
    for path in sorted(folder.glob("*.gguf")):
        raise ModelError(f"{folder} holds no safetensors. Give the path of the GGUF file itself: {path}.")
    raise ModelError(f"{folder} holds no weights. Expected {WEIGHTS} (or {INDEX} and its parts).")


def check_base_folder(folder: Path) -> dict[str, Any]:
    """Check a base model's files and return its `config.json`.

    Raises:
        UnsafeCheckpointError: If it has pickles only, or needs the program code of its repository.
        ModelError: If something is missing or damaged.
    """
    for path in weight_files(folder):
        read_header(path)
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder} holds a model and an adapter at once, and it is not clear which is meant. Move "
            "adapter_config.json and the adapter's weights to a folder of their own and give that as `adapter`."
        )
    config = read_json(folder / "config.json")
    other = config.get("transformers_weights")
    if other is not None and not str(other).endswith(".safetensors"):
        raise UnsafeCheckpointError(f"config.json in {folder} names {other!r} as its weights. Expected safetensors.")
    return config


def base_fingerprint(folder: Path) -> str:
    """Return an identity of a base model's weights: 32 hexadecimal digits.

    It is the SHA-256 of every tensor's name, shape and three windows of its values (start, middle, end), rounded to
    bfloat16. So it does not change with the number format the checkpoint is stored in (float32 or bfloat16), the
    way it is cut into files, or the quantisation it is loaded with; and it does change with every kind of training,
    because training moves values everywhere. An output matrix that is tied to the embedding is left out, since some
    writers store it and some do not. It tells models apart; it is no protection against forgery.

    Args:
        folder: A folder that `check_base_folder` accepts.
    """
    import numpy as np

    tied = bool(read_json(folder / "config.json").get("tie_word_embeddings", False))
    found: list[tuple[str, TensorInfo, Path]] = []
    for path in weight_files(folder):
        found += [(name, info, path) for name, info in read_header(path).tensors.items()]
    digest = hashlib.sha256()
    for name, info, path in sorted(found, key=lambda item: item[0]):
        if (tied and name == "lm_head.weight") or name.endswith("rotary_emb.inv_freq"):
            continue
        digest.update(f"{name}{list(info.shape)}".encode())
        kind = _NUMPY_TYPES.get(info.dtype)
        values = np.memmap(path, dtype=np.uint8, mode="r", offset=info.start, shape=(info.end - info.start,))
        numbers = values if kind is None else values.view(kind)
        for begin in (0, max(0, len(numbers) // 2 - _WINDOW // 2), max(0, len(numbers) - _WINDOW)):
            window = np.asarray(numbers[begin : begin + _WINDOW])
            digest.update(window.tobytes() if kind is None else _as_bfloat16(window, info.dtype))
    return digest.hexdigest()[:32]


def _as_bfloat16(window: Any, dtype: str) -> bytes:
    """Round values to bfloat16 (to nearest, ties to even) and return their bits."""
    import numpy as np

    if dtype == "BF16":
        return bytes(window.tobytes())
    bits = window.astype("<f4").view("<u4").astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)
    return bytes(rounded.astype("<u2").tobytes())
