"""How glibc gives memory back, for processes that are this package's own."""

from __future__ import annotations

import ctypes
import os
import sys

#: Parameters of mallopt (malloc.h).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3

_KEPT = 1 << 30
_PAD = 64 << 20
#: What older versions of glibc take at most.
_MOST_ONCE = 32 << 20


def keep_freed_memory() -> bool:
    """Have the C library keep up to a gigabyte of freed memory, instead of giving it back after every layer.

    A forward pass frees and asks for the same megabytes some hundred times. Left to itself, glibc returns them to the
    kernel, which clears each page before it hands it out again.

    The setting holds for the whole process, so only programs call this, such as the command line; a library has no
    business with the memory of the program that uses it.

    Returns:
        Whether it was set: on Linux with glibc, unless MALLOC_ variables in the environment settle the matter.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has no such function
        return False
    mmap = mallopt(_M_MMAP_THRESHOLD, _KEPT) or mallopt(_M_MMAP_THRESHOLD, _MOST_ONCE)
    return bool(mmap and mallopt(_M_TRIM_THRESHOLD, _KEPT) and mallopt(_M_TOP_PAD, _PAD))
