"""Cuts the text around a pair of mentions for people to read, with the mentions marked."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Range: TypeAlias = tuple[int, int]
"""(start, end) in characters, the end exclusive."""
GAP = " … "


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the text.

    Attributes:
        text: The characters.
        role: The mention that it belongs to: "head", "tail", "both" where the two overlap, or "".
    """

    text: str
    role: str = ""


def excerpt(text: str, sentence: Range, head: Range, tail: Range, *, margin: int = 160) -> tuple[Segment, ...]:
    """Cut the text around a pair into segments.

    The sentence is shown whole where it holds both mentions and is not very long; otherwise `margin` characters around
    each mention, cut at spaces, with an ellipsis for what is left out.
    """
    start, end = sentence
    first, last = min(head[0], tail[0]), max(head[1], tail[1])
    if start <= first and last <= end and end - start <= 6 * margin:
        windows = [(start, end)]
    else:
        around = sorted((_to_space(text, m[0] - margin, -1), _to_space(text, m[1] + margin, 1)) for m in (head, tail))
        (a, b), (c, d) = around
        windows = [(a, max(b, d))] if c <= b else around
    segments: list[Segment] = []
    for number, (start, end) in enumerate(windows):
        if number or (start > 0 and len(windows) > 1):
            segments.append(Segment(GAP))
        segments += _marked(text, (start, end), head, tail)
    if windows[-1][1] < len(text) and len(windows) > 1:
        segments.append(Segment(GAP))
    return tuple(segments)


def _marked(text: str, window: Range, head: Range, tail: Range) -> Iterable[Segment]:
    start, end = window
    cuts = sorted({start, end, *(p for p in (*head, *tail) if start < p < end)})
    return [Segment(text[a:b], _role(a, head, tail)) for a, b in pairwise(cuts)]


def _role(place: int, head: Range, tail: Range) -> str:
    in_head, in_tail = (start <= place < end for start, end in (head, tail))
    return "both" if in_head and in_tail else "head" if in_head else "tail" if in_tail else ""


def _to_space(text: str, place: int, step: int) -> int:
    """Move a cut outwards to the next space, so that no word is cut."""
    place = min(max(place, 0), len(text))
    for moved in range(20):
        at = place + step * moved
        if not 0 < at < len(text):
            return min(max(at, 0), len(text))
        if text[at].isspace():
            return at
    return place
