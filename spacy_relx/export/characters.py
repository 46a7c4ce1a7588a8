"""Characters that some formats cannot hold, and how they are replaced."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

# XML 1.0 allows none of these, not even escaped; lone surrogates fit into no UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    """Return text with control characters and lone surrogates replaced; tabs and line breaks stay."""
    return _UNPRINTABLE.sub(REPLACEMENT, text)


def encodable(text: str) -> str:
    """Return text with lone surrogates replaced, so that UTF-8 can hold it."""
    return _SURROGATES.sub(REPLACEMENT, text)


def one_line(text: str) -> str:
    """Return printable text with every run of white space as one space."""
    return " ".join(printable(text).split())


def identifier(key: str, clean: Callable[[str], str]) -> str:
    """Return a key as a format can hold it; two keys stay two, and the same key is the same in every export.

    Args:
        key: The key.
        clean: Replaces what the format cannot hold.
    """
    cleaned = clean(key)
    if cleaned == key:
        return key
    return f"{cleaned} {hashlib.sha256(key.encode('utf8', 'backslashreplace')).hexdigest()[:8]}"
