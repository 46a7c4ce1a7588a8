"""Whether scores mean what they say, and what each threshold would give: calibration and precision-recall curves."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from spacy_relx.errors import DataError
from spacy_relx.evaluation.counts import Counts, negative_labels
from spacy_relx.evaluation.metrics import by_document, directions_for, gold_facts, places, says_nothing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from spacy_relx.evaluation.counts import Fact
    from spacy_relx.evaluation.records import PairRecord, RunInfo

Binning = Literal["equal_width", "equal_mass"]


@dataclass(frozen=True, slots=True)
class Judged:
    """One predicted fact, the score it was given, and whether it is right.

    Attributes:
        label: The label; "" for an answer outside the schema.
        score: 0..1; an answer outside the schema is judged by no threshold.
        right: Whether it is a gold fact.
        in_schema: False for an answer outside the schema.
    """

    label: str
    score: float
    right: bool
    in_schema: bool = True


@dataclass(frozen=True, slots=True)
class Bin:
    """A point of the reliability curve: answers with about the same score.

    Attributes:
        low: Lowest score that belongs here: the edge of the bin, or of its first answer.
        high: Highest score.
        score: Mean score.
        right: Share that is right.
        n: How many.
    """

    low: float
    high: float
    score: float
    right: float
    n: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far scores are from the share of right answers.

    Attributes:
        ece: Expected calibration error: mean distance of score and share of right answers over the bins, weighted.
        brier: Mean squared distance of the score from 1 (right) or 0 (wrong).
        bins: The points of the reliability curve; bins without answers are left out.
        n: Answers.
    """

    ece: float
    brier: float
    bins: tuple[Bin, ...]
    n: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What one threshold gives."""

    threshold: float
    counts: Counts

    def to_dict(self) -> dict[str, float | int]:
        """Return plain values."""
        return {"threshold": self.threshold, **self.counts.to_dict()}


def judge(info: RunInfo, records: Iterable[PairRecord]) -> tuple[list[Judged], int]:
    """Judge every fact that a run predicts before thresholds.

    A fact that both orders of a pair state is judged once, with the higher score, as the pipeline keeps it.

    Returns:
        The facts, and the number of gold facts.
    """
    directions, negatives = directions_for(info), negative_labels(info.negative)
    judged: list[Judged] = []
    n_gold = 0
    for doc in by_document(records).values():
        gold = gold_facts(doc, directions, negatives)
        n_gold += len(gold)
        best: dict[Fact, float] = {}
        for record in doc:
            if record.answer is None or not record.enumerated or says_nothing(record, info.negative):
                continue
            if not record.in_schema:
                judged.append(Judged("", record.score, False, False))
                continue
            fact = directions.fact(record.answer, *places(record))
            best[fact] = max(best.get(fact, 0.0), record.score)
        judged.extend(Judged(fact[0], score, fact in gold) for fact, score in best.items())
    return judged, n_gold


def calibration(judged: Sequence[Judged], *, n_bins: int = 10, binning: Binning = "equal_width") -> Calibration | None:
    """Measure calibration.

    Source: expected calibration error, Naeini et al. 2015; equal-mass bins, Nixon et al. 2019.

    Args:
        judged: Answers of a run.
        n_bins: Bins; with "equal_mass" there are never more than answers.
        binning: "equal_width" splits 0..1, "equal_mass" the sorted answers.

    Returns:
        None if there are no answers.

    Raises:
        DataError: If `n_bins` is not positive.
    """
    if n_bins < 1:
        raise DataError(f"n_bins is {n_bins}. Expected at least 1.")
    if not judged:
        return None
    answers = sorted(judged, key=lambda answer: answer.score)
    bins = _equal_width(answers, n_bins) if binning == "equal_width" else _equal_mass(answers, n_bins)
    n = len(answers)
    return Calibration(
        ece=sum(b.n * abs(b.score - b.right) for b in bins) / n,
        brier=sum((answer.score - answer.right) ** 2 for answer in answers) / n,
        bins=tuple(bins),
        n=n,
    )


def precision_recall(judged: Iterable[Judged], n_gold: int) -> list[CurvePoint]:
    """Points of the precision-recall curve, one for each score that occurs, from strict to lenient.

    Args:
        judged: Answers of a run.
        n_gold: Gold facts.
    """
    judged = list(judged)
    n_outside = sum(not answer.in_schema for answer in judged)
    answers = sorted((a for a in judged if a.in_schema), key=lambda a: -a.score)
    points = []
    hits, predicted = 0, n_outside
    for score, group in groupby(answers, key=lambda a: a.score):
        for answer in group:
            hits += answer.right
            predicted += 1
        points.append(CurvePoint(score, Counts(hits, predicted, n_gold)))
    return points


def average_precision(points: Sequence[CurvePoint]) -> float:
    """Area under a precision-recall curve, as the sum of precision times the recall gained."""
    area = before = 0.0
    for point in points:
        area += (point.counts.r - before) * point.counts.p
        before = point.counts.r
    return area


def _equal_width(answers: Sequence[Judged], n_bins: int) -> list[Bin]:
    grouped = groupby(answers, key=lambda answer: min(int(answer.score * n_bins), n_bins - 1))
    return [_bin(list(group), i / n_bins, (i + 1) / n_bins) for i, group in grouped]


def _equal_mass(answers: Sequence[Judged], n_bins: int) -> list[Bin]:
    n, n_bins = len(answers), min(n_bins, len(answers))
    parts = [answers[i * n // n_bins : (i + 1) * n // n_bins] for i in range(n_bins)]
    return [_bin(part, part[0].score, part[-1].score) for part in parts]


def _bin(answers: Sequence[Judged], low: float, high: float) -> Bin:
    n = len(answers)
    return Bin(low, high, sum(a.score for a in answers) / n, sum(a.right for a in answers) / n, n)
