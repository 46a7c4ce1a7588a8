"""Typed entity markers: where they go among a text's tokens, and which tokens stay if there are too many.

Markers are ids beyond the tokenizer's own, so no text can contain one. No torch.

Source: typed entity markers and the classifier on their two beginnings, Zhou and Chen 2022, arXiv:2102.01373.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spacy_relx.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from spacy_relx.evaluation.records import MentionRecord, PairRecord

N_MARKERS = 4
"""Markers in a row of ids: before and after each mention."""


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """A pair as an encoder reads it.

    Attributes:
        ids: Token and marker ids.
        head_at: Index of the marker before the head.
        tail_at: Index of the marker before the tail.
        n_cut: Tokens of the text that were left out.
    """

    ids: tuple[int, ...]
    head_at: int
    tail_at: int
    n_cut: int


class PairEncoder:
    """Turns pairs into ids.

    Args:
        tokenizer: A fast tokenizer: one that tells which characters a token covers.
        types: Entity types with markers of their own; all others share one.
        n_ids: Ids that the encoder knows without the markers.
        max_tokens: Most ids of a row.

    Raises:
        ModelError: If the tokenizer cannot tell where tokens come from.
        ConfigError: If there is no room for text beside the markers.
    """

    def __init__(self, tokenizer: Any, types: Iterable[str], n_ids: int, max_tokens: int) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError("The encoder has no fast tokenizer. Expected one with a tokenizer.json.")
        self._tokenizer = tokenizer
        self._first = {type_: n_ids + N_MARKERS * (i + 1) for i, type_ in enumerate(sorted(set(types)))}
        self._unknown = n_ids
        self.n_ids = n_ids + N_MARKERS * (len(self._first) + 1)
        self._before, self._after = _frame(tokenizer)
        self._budget = max_tokens - N_MARKERS - len(self._before) - len(self._after)
        if self._budget < 2 * N_MARKERS:
            raise ConfigError(f"max_tokens is {max_tokens}. Expected at least {max_tokens - self._budget + 8}.")
        self._last: tuple[str, list[int], list[tuple[int, int]]] | None = None

    def __call__(self, pair: PairRecord) -> EncodedPair:
        """Return the ids of a pair; of a text that is too long, the tokens around the two mentions."""
        ids, places = self._tokens(pair.text)
        spans = head_span, tail_span = _tokens_of(pair.head, places), _tokens_of(pair.tail, places)
        kept = keep_around(len(ids), head_span, tail_span, self._budget)
        inserts = []
        for shift, mention, (start, end) in zip((0, 2), (pair.head, pair.tail), spans):
            first, last = bisect_left(kept, start), bisect_left(kept, end)
            marker = self._first.get(mention.type, self._unknown) + shift
            # Where several meet, what closes comes before what opens, and the longer mention is the outer one.
            inserts += [(first, 1, -last, marker), (last, 0 if last > first else 2, -first, marker + 1)]
        row: list[int] = [*self._before]
        at = 0
        opened = {}
        for place, _, _, marker in sorted(inserts):
            row += [ids[i] for i in kept[at:place]]
            at = place
            opened[marker] = len(row)
            row.append(marker)
        row += [ids[i] for i in kept[at:]] + self._after
        head, tail = (opened[self._first.get(m.type, self._unknown) + s] for s, m in ((0, pair.head), (2, pair.tail)))
        return EncodedPair(tuple(row), head, tail, len(ids) - len(kept))

    def _tokens(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        # The pairs of a document follow each other.
        if self._last is None or self._last[0] != text:
            done = self._tokenizer(
                text,
                add_special_tokens=False,
                split_special_tokens=True,  # what looks like a special token in a text is text
                return_offsets_mapping=True,
                verbose=False,
            )
            self._last = (text, list(done["input_ids"]), [(a, b) for a, b in done["offset_mapping"]])
        return self._last[1:]


def keep_around(n_tokens: int, head: tuple[int, int], tail: tuple[int, int], budget: int) -> Sequence[int]:
    """Return the indices of the tokens to keep: all, those around the pair, or those around each mention.

    Args:
        n_tokens: Tokens of the text.
        head: Tokens of the first mention, the end exclusive.
        tail: Tokens of the second.
        budget: Most tokens to keep.
    """
    if n_tokens <= budget:
        return range(n_tokens)
    first, last = min(head[0], tail[0]), max(head[1], tail[1])
    if last - first <= budget:
        return range(*_window(first, last, n_tokens, budget))
    kept: set[int] = set()
    for start, end in (head, tail):
        half = budget // 2
        kept.update(range(*_window(start, min(end, start + half), n_tokens, half)))
    return sorted(kept)


def _window(first: int, last: int, n_tokens: int, budget: int) -> tuple[int, int]:
    """Widen a range evenly to `budget` tokens; what one side lacks goes to the other."""
    start = max(0, min(first - (budget - (last - first)) // 2, n_tokens - budget))
    return start, min(n_tokens, start + budget)


def _tokens_of(mention: MentionRecord, places: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Tokens that cover any character of a mention, the end exclusive; an empty range where there are none."""
    covering = [i for i, (start, end) in enumerate(places) if start < mention.end and end > mention.start]
    if covering:
        return covering[0], covering[-1] + 1
    place = bisect_left([start for start, _ in places], mention.start)
    return place, place


def _frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids that the tokenizer puts before and after a text."""
    done = tokenizer("a", add_special_tokens=True, return_special_tokens_mask=True)
    ids, mask = list(done["input_ids"]), list(done["special_tokens_mask"])
    text = [i for i, special in enumerate(mask) if not special]
    if not text:
        raise ModelError("The encoder's tokenizer makes nothing of the letter a. Expected a tokenizer for text.")
    return ids[: text[0]], ids[text[-1] + 1 :]
