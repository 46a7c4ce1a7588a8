"""Which device and which number format "auto" means on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from spacy_relx.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str) -> torch.device:
    """Return the device of a name; "auto" is CUDA, else MPS, else the CPU.

    Raises:
        ModelError: If the name is no device, or this machine does not have it.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"model.device is {name!r}. Expected auto, cpu, cuda, cuda:N or mps.") from error
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ModelError(f"model.device is {name!r}, but torch sees {count} CUDA devices. Use auto or cpu.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError(f"model.device is {name!r}, but torch sees no MPS device here. Use auto or cpu.")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the number format of a name.

    "auto" is bfloat16 on CUDA; on MPS where a bfloat16 product works; on a CPU with bfloat16 instructions
    (AVX512-BF16 or AMX-BF16), for without them bfloat16 is slower than float32; else float32.
    """
    if name != "auto":
        return _DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16
    if device.type == "cpu":
        return torch.bfloat16 if _cpu_has_bfloat16() else torch.float32
    try:
        one = torch.ones(1, 1, dtype=torch.bfloat16, device=device)
        works = float(one @ one) == 1.0
    except (RuntimeError, TypeError):
        works = False
    return torch.bfloat16 if works else torch.float32


def _cpu_has_bfloat16() -> bool:
    capabilities: Callable[[], Any] | None = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is not None:
        known = capabilities()
        return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    probe: Callable[[], bool] | None = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe()) if probe is not None else False
