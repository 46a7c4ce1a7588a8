"""How much memory a process has held at most."""

from __future__ import annotations

import sys


def peak_bytes() -> int:
    """The most memory this process has held at a time, in bytes, since it began."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil  # type: ignore[import-untyped]  # comes with accelerate

        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)  # Linux counts kilobytes


def current_bytes() -> int:
    """The memory that this process holds now, in bytes."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def reset_device_peak(device: str) -> None:
    """Count the peak of a CUDA device from now on; nothing elsewhere."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()


def peak_facts(device: str) -> dict[str, float]:
    """The peaks as a result file has them, in MiB.

    Args:
        device: Type of the device: "cpu", "cuda", "mps".
    """
    facts = {"process_peak_mib": round(peak_bytes() / 2**20, 1)}
    if device == "cuda":
        import torch

        facts["cuda_peak_allocated_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
        facts["cuda_peak_reserved_mib"] = round(torch.cuda.max_memory_reserved() / 2**20, 1)
    return facts
