"""How sure a score is, and whether two runs differ: documents are drawn anew, never pairs.

Pairs of one document share their sentences and entities, so they are no independent draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spacy_relx.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from spacy_relx.evaluation.counts import Tally

    Floats = NDArray[np.float64]

#: Resamples are multiplied with the documents' counts this many cells at a time.
_MAX_CELLS = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A score and the range that holds it at some level of confidence."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Return plain values."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True)
class Comparison:
    """The difference of two runs on the same documents, second minus first.

    Attributes:
        first: Score of the first run.
        second: Score of the second run.
        difference: With its interval, from a paired bootstrap over documents.
        p_value: Of an approximate randomisation test: how often swapping the runs' answers, document by document at
            random, gives a difference at least as large. Two-sided.
        n_docs: Documents.
        n_rounds: Resamples, and random swaps.
    """

    first: float
    second: float
    difference: Interval
    p_value: float
    n_docs: int
    n_rounds: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "first": self.first,
            "second": self.second,
            "difference": self.difference.to_dict(),
            "p_value": self.p_value,
            "n_docs": self.n_docs,
            "n_rounds": self.n_rounds,
        }


def intervals(
    tallies: Mapping[str, Tally], *, n_rounds: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """Percentile intervals of precision, recall, F and macro F.

    Args:
        tallies: Counts by document.
        n_rounds: Resamples.
        level: Share of the resamples inside an interval, 0..1.
        seed: Of the random numbers.

    Returns:
        Intervals under `micro_p`, `micro_r`, `micro_f` and `macro_f`; empty if there are no documents.
    """
    _check(n_rounds, level)
    if not tallies:
        return {}
    docs = list(tallies.values())
    labels = sorted({label for tally in docs for label in (*tally.gold, *tally.predicted)})
    counts = _counts(docs, labels)
    ones = np.ones((1, len(docs)))
    value = _scores(ones, counts, len(labels))
    samples = [_scores(w, counts, len(labels)) for w in _resamples(len(docs), n_rounds, seed)]
    return {name: _interval(value[name], [sample[name] for sample in samples], level) for name in value}


def compare(
    first: Mapping[str, Tally],
    second: Mapping[str, Tally],
    *,
    n_rounds: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare the micro-F of two runs on the same documents.

    Args:
        first: Counts by document of one run.
        second: Counts of the other.
        n_rounds: Resamples, and random swaps.
        level: Of the interval.
        seed: Of the random numbers.

    Raises:
        DataError: If the runs have other documents, or other gold facts.
    """
    _check(n_rounds, level)
    _check_same(first, second)
    names = list(first)
    if not names:
        raise DataError("There are no documents to compare. Expected two runs with records.")
    a, b = (_micro_counts([run[name] for name in names]) for run in (first, second))
    resampled = [_micro_f(w @ b) - _micro_f(w @ a) for w in _resamples(len(names), n_rounds, seed)]
    value = float((_micro_f(b.sum(0)) - _micro_f(a.sum(0)))[()])
    n_extreme = 0
    for swap in _swaps(len(names), n_rounds, seed):
        moved = swap @ (b - a)
        difference = _micro_f(b.sum(0) - moved) - _micro_f(a.sum(0) + moved)
        # Counts are whole numbers, so equal differences may differ in the last digit only.
        n_extreme += int((np.abs(difference) >= abs(value) - 1e-12).sum())
    return Comparison(
        first=float(_micro_f(a.sum(0))[()]),
        second=float(_micro_f(b.sum(0))[()]),
        difference=_interval(value, resampled, level),
        # The observed arrangement is one of those that the null hypothesis allows.
        p_value=(n_extreme + 1) / (n_rounds + 1),
        n_docs=len(names),
        n_rounds=n_rounds,
    )


def _check(n_rounds: int, level: float) -> None:
    if n_rounds < 1:
        raise DataError(f"n_rounds is {n_rounds}. Expected at least 1.")
    if not 0 < level < 1:
        raise DataError(f"level is {level}. Expected a number between 0 and 1, such as 0.95.")


def _check_same(first: Mapping[str, Tally], second: Mapping[str, Tally]) -> None:
    if first.keys() != second.keys():
        name = sorted(first.keys() ^ second.keys())[0]
        raise DataError(f"Only one of the runs has the document {name!r}. Expected two runs on the same documents.")
    for name, tally in first.items():
        if +tally.gold != +second[name].gold:
            raise DataError(
                f"The runs have other gold relations in the document {name!r}. Expected two runs on the same data, "
                "with the same protocol."
            )


def _counts(docs: Sequence[Tally], labels: Sequence[str]) -> Floats:
    """Counts of each document. Shape: (documents, 3 x labels + 1): hits, predicted, gold by label, then outside."""
    rows = [
        [
            *(tally.hits[label] for label in labels),
            *(tally.predicted[label] for label in labels),
            *(tally.gold[label] for label in labels),
            tally.n_outside,
        ]
        for tally in docs
    ]
    return np.array(rows, dtype=np.float64)


def _micro_counts(docs: Sequence[Tally]) -> Floats:
    """Hits, predicted and gold of each document. Shape: (documents, 3)."""
    counts = [tally.micro for tally in docs]
    return np.array([[count.hits, count.predicted, count.gold] for count in counts], dtype=np.float64)


def _scores(weights: Floats, counts: Floats, n_labels: int) -> dict[str, Floats]:
    """Scores of each resample; `weights` says how often each document was drawn. Shape: (resamples, documents)."""
    summed = weights @ counts
    hits, predicted, gold = (summed[:, i * n_labels : (i + 1) * n_labels] for i in range(3))
    all_hits, all_gold = hits.sum(1), gold.sum(1)
    all_predicted = predicted.sum(1) + summed[:, -1]
    per_label = _ratio(2 * hits, predicted + gold)
    occurs = gold > 0
    return {
        "micro_p": _ratio(all_hits, all_predicted),
        "micro_r": _ratio(all_hits, all_gold),
        "micro_f": _ratio(2 * all_hits, all_predicted + all_gold),
        "macro_f": _ratio((per_label * occurs).sum(1), occurs.sum(1)),
    }


def _micro_f(counts: Floats) -> Floats:
    """F of (hits, predicted, gold) along the last axis."""
    return _ratio(2 * counts[..., 0], counts[..., 1] + counts[..., 2])


def _ratio(above: Floats, below: Any) -> Floats:
    divisor: Floats = np.asarray(below, dtype=np.float64)
    result: Floats = np.divide(above, divisor, out=np.zeros_like(divisor), where=divisor > 0)
    return result


def _resamples(n_docs: int, n_rounds: int, seed: int) -> Iterable[Floats]:
    """Draw documents with replacement: how often each, a block of rounds at a time."""
    random = np.random.default_rng(seed)
    share = np.full(n_docs, 1 / n_docs)
    for size in _blocks(n_docs, n_rounds):
        yield random.multinomial(n_docs, share, size=size).astype(np.float64)


def _swaps(n_docs: int, n_rounds: int, seed: int) -> Iterable[Floats]:
    """Toss a coin for each document: 1 where the runs' answers change places."""
    random = np.random.default_rng(seed)
    for size in _blocks(n_docs, n_rounds):
        yield random.integers(0, 2, size=(size, n_docs)).astype(np.float64)


def _blocks(n_docs: int, n_rounds: int) -> Iterable[int]:
    step = max(1, _MAX_CELLS // n_docs)
    for start in range(0, n_rounds, step):
        yield min(step, n_rounds - start)


def _interval(value: Any, samples: Sequence[Floats], level: float) -> Interval:
    low, high = np.quantile(np.concatenate(samples), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.asarray(value).reshape(-1)[0]), float(low), float(high))
