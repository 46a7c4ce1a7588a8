"""What a run's figures are at thresholds: at the pipeline's own, and at those that were found on development data.

They stand in a table of their own. The other tables of a report count every answer, or those that reach `--threshold`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spacy_relx.errors import DataError
from spacy_relx.evaluation.bootstrap import intervals
from spacy_relx.evaluation.metrics import Decision, score, tally_documents

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from spacy_relx.evaluation.records import PairRecord, RunInfo
    from spacy_relx.evaluation.thresholds import StoredThresholds

THRESHOLDS_NOTE = (
    "The same answers, counted with a threshold. Those that are called best were chosen on development data, never on "
    "what is shown here."
)


@dataclass(frozen=True, slots=True)
class AtThreshold:
    """The figures of a run at one choice of thresholds.

    Attributes:
        what: The choice in words.
        p: Precision over the positive labels, pooled; None if nothing is answered.
        r: Recall, likewise.
        f: Positive-class micro-F1.
        interval: Bootstrap interval of `f` over documents.
        macro_f: Mean F1 of the labels.
        false_positive_rate: Share of negative pairs that are given a label.
    """

    what: str
    p: float | None
    r: float | None
    f: float | None
    interval: tuple[float, float] | None
    macro_f: float | None
    false_positive_rate: float | None


def at_thresholds(
    info: RunInfo,
    records: Sequence[PairRecord],
    stored: Sequence[StoredThresholds],
    *,
    n_rounds: int,
    level: float,
    seed: int,
) -> tuple[AtThreshold, ...]:
    """Return the figures of a run at no threshold, at the pipeline's own, and at those found for it.

    Args:
        info: The run.
        records: Its records.
        stored: Thresholds of development data, of this run or others.
        n_rounds: Bootstrap resamples of the intervals.
        level: Of the intervals.
        seed: Of the resamples.

    Returns:
        Nothing if no thresholds were found for the run.

    Raises:
        DataError: If several were, or some on the very split of the run.
    """
    found = [thresholds for thresholds in stored if thresholds.is_for(info)]
    if not found:
        return ()
    if len(found) > 1:
        raise DataError(
            f"{len(found)} files hold thresholds for {info.dataset} under {info.protocol} with one model. Expected one."
        )
    return tuple(
        _figures(what, info, records, decision, n_rounds, level, seed) for what, decision in _choices(info, found[0])
    )


def _choices(info: RunInfo, found: StoredThresholds) -> Iterator[tuple[str, Decision]]:
    yield "none: every answer counts", Decision(negative=info.negative)
    own = info.settings.get("threshold")
    if isinstance(own, (int, float)):
        labels = (info.settings.get("schema") or {}).get("labels") or {}
        by_label = {name: entry["threshold"] for name, entry in labels.items() if entry and "threshold" in entry}
        and_labels = " and the labels' own" if by_label else ""
        yield f"{own:.3g}{and_labels}: as the pipeline is set", Decision(own, by_label, info.negative)
    where = found.run.get("split", "development data")
    if found.threshold is None:
        return
    yield f"{found.threshold:.3f}: best for all labels on {where}", Decision(found.threshold, negative=info.negative)
    if found.labels:
        yield f"by label: best on {where}", Decision(found.threshold, found.labels, info.negative)


def _figures(
    what: str,
    info: RunInfo,
    records: Sequence[PairRecord],
    decision: Decision,
    n_rounds: int,
    level: float,
    seed: int,
) -> AtThreshold:
    tally = score(info, records, decision).tally
    ranges = intervals(tally_documents(info, records, decision), n_rounds=n_rounds, level=level, seed=seed)
    micro = tally.micro
    return AtThreshold(
        what,
        micro.p if micro.predicted else None,
        micro.r if micro.gold else None,
        micro.f if micro.gold else None,
        (ranges["micro_f"].low, ranges["micro_f"].high) if ranges and micro.gold else None,
        tally.macro_f,
        tally.false_positive_rate,
    )
