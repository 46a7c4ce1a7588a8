"""Finding entities that a data set names by their text alone.

The rule: every different string is one mention. Longer strings are placed first, and a string takes its first
occurrence, as a whole word and in the same letters, that lies outside the mentions placed before it. Where there is no
such occurrence, the first of these is taken that exists: one inside another mention (the two overlap), the same in
another case, the same without accents, and finally one inside a word. Everything but the first choice is reported.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_INSIDE = "found only inside another mention"
_CASE = "found only in another case"
_ACCENTS = "found only without its accents"
_PART = "found only inside a word"
#: Ways to look, best first: (reported as, how letters are compared, only whole words, only outside other mentions).
_WAYS: tuple[tuple[str, Callable[[str], str], bool, bool], ...] = (
    ("", str, True, True),
    (_INSIDE, str, True, False),
    (_CASE, lambda text: _fold(text, accents=True), True, True),
    (_CASE, lambda text: _fold(text, accents=True), True, False),
    (_ACCENTS, lambda text: _fold(text, accents=False), True, True),
    (_ACCENTS, lambda text: _fold(text, accents=False), True, False),
    (_PART, str, False, True),
    (_PART, str, False, False),
)
SEVERAL = "occurs several times: the first is taken"


@dataclass(frozen=True, slots=True)
class Found:
    """Where a string was found; `notes` say what is uncertain about it."""

    start: int
    end: int
    notes: tuple[str, ...] = ()


def align(text: str, surfaces: Iterable[str]) -> dict[str, Found]:
    """Find strings in a text, by the rule that the module states. What cannot be found is left out.

    Args:
        text: The text.
        surfaces: The strings; repeated ones count once.
    """
    found: dict[str, Found] = {}
    taken: list[tuple[int, int]] = []
    unique = dict.fromkeys(surfaces)
    for surface in sorted(unique, key=len, reverse=True):
        place = _find(text, surface, taken) if surface.strip() else None
        if place is not None:
            taken.append((place.start, place.end))
            found[surface] = place
    return {surface: found[surface] for surface in unique if surface in found}


def _find(text: str, surface: str, taken: list[tuple[int, int]]) -> Found | None:
    for note, form, whole, outside in _WAYS:
        places = _occurrences(form(text), form(surface), whole=whole)
        if outside:
            places = [(s, e) for s, e in places if all(e <= start or end <= s for start, end in taken)]
        if places:
            notes = [note] if note else []
            notes += [SEVERAL] if len(places) > 1 else []
            return Found(*places[0], tuple(notes))
    return None


def _occurrences(text: str, surface: str, *, whole: bool) -> list[tuple[int, int]]:
    if surface not in text:
        return []
    pattern = re.escape(surface)
    if whole:
        before = r"(?<!\w)" if re.match(r"\w", surface) else ""
        after = r"(?!\w)" if re.match(r"\w", surface[-1]) else ""
        pattern = before + pattern + after
    return [match.span() for match in re.finditer(pattern, text)]


def _fold(text: str, *, accents: bool) -> str:
    """Return the text in lower case, with or without accents, as long as before: offsets stay."""
    letters = text if accents else [unicodedata.normalize("NFD", letter)[0] for letter in text]
    return "".join(lower if len(lower := letter.lower()) == 1 else letter for letter in letters)
