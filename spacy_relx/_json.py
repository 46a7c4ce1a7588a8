"""JSON that somebody else wrote."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes, **kwargs: Any) -> Any:
    """Parse JSON as `json.loads` does; every way in which that fails is a `ValueError`.

    Python's own parser raises `RecursionError` for a few thousand nested brackets, which readers that expect bad input
    would let through.

    Args:
        text: The JSON text; bytes are UTF-8, -16 or -32.
        **kwargs: Passed on to `json.loads`.

    Raises:
        ValueError: If the text is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text, **kwargs)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
