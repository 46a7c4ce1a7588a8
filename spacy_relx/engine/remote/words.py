"""What a server says beside its answers: messages, made fit to be shown, and how long it wants to be left alone."""

from __future__ import annotations

import email.utils
import math
import time

from spacy_relx._json import parse_json

#: Characters of a server's text that are shown.
_MOST_SHOWN = 300

#: Seconds to keep away from a server, at most, whatever it asks for.
_LONGEST_RETRY_AFTER = 3600.0


def without_key(text: str, key: str) -> str:
    """Text without the key: some servers repeat what they were sent."""
    return text.replace(key, "[key]") if key else text


def shown(text: str, key: str) -> str:
    """Text from the server for a message: short, without the key, and without what a terminal would obey."""
    text = "".join(char if char.isprintable() else " " for char in without_key(text, key))
    text = " ".join(text.split())
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def message_of(content: bytes, key: str) -> str:
    """What an error answer says, as most servers put it, fit to be shown."""
    text = content.decode("utf8", "replace")
    try:
        value = parse_json(text)
    except ValueError:
        return shown(text, key)
    for name in ("error", "message", "detail"):
        if isinstance(value, dict) and name in value:
            value = value[name]
    return shown(value if isinstance(value, str) else text, key)


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER) if math.isfinite(seconds) else None
