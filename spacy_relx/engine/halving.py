"""Work that does not fit into memory is done in halves."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch

from spacy_relx.errors import DeviceError, PackBudgetError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_halves(
    items: Sequence[_Item], compute: Callable[[Sequence[_Item]], _Result], forget: Callable[[], None], advice: str
) -> list[_Result]:
    """Compute something of many items at once, or of their halves where there is no memory for all.

    Args:
        items: The items; at least one.
        compute: What is done with a run of them.
        forget: Drops what a failed attempt left.
        advice: What the error says where one item alone does not fit.

    Returns:
        The results of the runs, in order.

    Raises:
        PackBudgetError: If one item alone does not fit: that item is at fault, and others may fit.
        DeviceError: If the device itself failed.
    """
    try:
        return [compute(items)]
    except Exception as error:
        if is_device_failure(error):
            raise DeviceError(
                f"The device failed: {error}. After such an error a process can compute nothing more on it. Begin "
                "again in a new process; what is written stays."
            ) from error
        if not is_out_of_memory(error):
            raise
        message = str(error)
    # Outside the except block, so that the traceback no longer holds the failed attempt's tensors.
    forget()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    if len(items) == 1:
        raise PackBudgetError(f"{advice} The device said: {message}")
    half = len(items) // 2
    return [part for run in (items[:half], items[half:]) for part in in_halves(run, compute, forget, advice)]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left; on a processor torch raises a plain RuntimeError."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    said = ("can't allocate memory", "CUDA error: out of memory")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)


def is_device_failure(error: BaseException) -> bool:
    """Whether an accelerator reports something else than a lack of memory: no later call on it would succeed."""
    # torch before 2.8 raises a plain RuntimeError.
    kind = getattr(torch, "AcceleratorError", None)
    failed = kind is not None and isinstance(error, kind)
    return not is_out_of_memory(error) and (failed or (isinstance(error, RuntimeError) and "CUDA error" in str(error)))
