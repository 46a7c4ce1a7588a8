"""A walk through the header of a GGUF file that believes nothing it reads.

The `gguf` package trusts every count: a file of a hundred bytes that announces a list of 2**50 numbers keeps it busy
for years, and a list of lists of lists ends in a stack overflow. So each length is compared here with the bytes that
are left, before that reader sees the file. Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: Bytes of a value, by the number of its type.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
_MAX_DIMS = 4  # ggml's own limit


def check_counts(path: Path) -> None:
    """Check that the header of a little-endian GGUF file announces no more than the file can hold.

    Raises:
        ValueError: Saying what it announces.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        walk = _Walk(data)
        walk.skip(8, "magic and version")
        n_tensors, n_values = walk.number("Q"), walk.number("Q")
        for _ in range(n_values):
            walk.string()
            walk.value(walk.number("I"))
        for _ in range(n_tensors):
            walk.string()
            n_dims = walk.number("I")
            if n_dims > _MAX_DIMS:
                raise ValueError(f"a tensor of {n_dims} dimensions")
            walk.skip(8 * n_dims + 4 + 8, "the place of a tensor")


class _Walk:
    """A place in some bytes that only moves forward, and never past their end."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0

    def skip(self, n_bytes: int, what: str) -> None:
        if n_bytes > len(self._data) - self._at:
            raise ValueError(f"{what} of {n_bytes} bytes, where {len(self._data) - self._at} are left")
        self._at += n_bytes

    def number(self, form: str) -> int:
        start = self._at
        self.skip(struct.calcsize(form), "a number")
        (value,) = struct.unpack_from(f"<{form}", self._data, start)
        return int(value)

    def string(self) -> None:
        self.skip(self.number("Q"), "a string")

    def value(self, kind: int) -> None:
        if kind == _STRING:
            self.string()
        elif kind == _ARRAY:
            item, n_items = self.number("I"), self.number("Q")
            if item == _STRING:
                for _ in range(n_items):
                    self.string()
            else:
                self.skip(n_items * self._size(item), "a list")
        else:
            self.skip(self._size(kind), "a value")

    def _size(self, kind: int) -> int:
        if kind not in _SIZES:
            raise ValueError(f"a value of the type {kind}")  # lists of lists among them, which no model has
        return _SIZES[kind]
