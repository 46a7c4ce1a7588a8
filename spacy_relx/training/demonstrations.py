"""Demonstrations from the training data itself: other texts, with their right answers.

No torch, no spaCy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from spacy_relx.prompts import Example, clean

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from random import Random

    from spacy_relx.training.contexts import AnnotatedContext, AnnotatedPair

_Entry: TypeAlias = "tuple[str, AnnotatedPair]"

# Draws that may meet a text that is taken before all entries are looked through.
_TRIES = 8


class Demonstrations:
    """The pairs of some contexts, to draw demonstrations from.

    Args:
        contexts: The contexts.
    """

    def __init__(self, contexts: Iterable[AnnotatedContext]) -> None:
        self._positives: dict[str, list[_Entry]] = {}
        self._negatives: list[_Entry] = []
        for context in contexts:
            text = clean(context.text)
            related = {(clean(pair.head), clean(pair.tail)) for pair in context.pairs if pair.labels}
            for pair in context.pairs:
                for label in pair.labels:
                    self._positives.setdefault(label, []).append((text, pair))
                # Of two mentions of one text, one may hold a relation and the other none: that shows nothing.
                if not pair.labels and (clean(pair.head), clean(pair.tail)) not in related:
                    self._negatives.append((text, pair))

    def __len__(self) -> int:
        return sum(map(len, self._positives.values())) + len(self._negatives)

    def draw(
        self, n: int, texts: Collection[str], labels: Collection[str], negative: str | None, rng: Random
    ) -> tuple[Example, ...]:
        """Draw demonstrations in random order, each of another text.

        The first is of a relation, the second of none, and each further one of either. All labels are as likely,
        however often they occur.

        Args:
            n: How many; there may be fewer, where the data has no more.
            texts: The texts that are asked about, which are never shown.
            labels: Names of the relations that may be shown.
            negative: Name of the negative label; None: only relations are shown.
            rng: Draws.
        """
        taken = {clean(text) for text in texts}
        shown: list[Example] = []
        for i in range(n):
            of_none = negative is not None and (i == 1 or (i > 1 and rng.random() < 0.5))
            example = self._negative(taken, negative, rng) if of_none else None
            if example is None:
                example = self._positive(taken, labels, rng)
            if example is None and i > 0:
                example = self._negative(taken, negative, rng)
            if example is None:
                break
            taken.add(example.text)
            shown.append(example)
        rng.shuffle(shown)
        return tuple(shown)

    def _positive(self, taken: set[str], labels: Collection[str], rng: Random) -> Example | None:
        names = sorted(label for label in labels if label in self._positives)
        rng.shuffle(names)
        for name in names:
            entry = _pick(self._positives[name], taken, rng)
            if entry is not None:
                return _example(entry, name)
        return None

    def _negative(self, taken: set[str], negative: str | None, rng: Random) -> Example | None:
        entry = None if negative is None else _pick(self._negatives, taken, rng)
        return None if entry is None or negative is None else _example(entry, negative)


def _pick(entries: Sequence[_Entry], taken: set[str], rng: Random) -> _Entry | None:
    """Draw an entry of a text that is not taken."""
    if not entries:
        return None
    for _ in range(_TRIES):
        entry = rng.choice(entries)
        if entry[0] not in taken:
            return entry
    free = [entry for entry in entries if entry[0] not in taken]
    return rng.choice(free) if free else None


def _example(entry: _Entry, label: str) -> Example:
    text, pair = entry
    return Example(text, pair.head, pair.tail, label, pair.head_type, pair.tail_type)
