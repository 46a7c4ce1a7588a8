"""Everything that is said about one run, as plain values: what the command prints, writes as JSON, and reports show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spacy_relx.errors import DataError
from spacy_relx.evaluation.bootstrap import intervals
from spacy_relx.evaluation.calibration import average_precision, calibration, judge, precision_recall
from spacy_relx.evaluation.leaks import leak_report
from spacy_relx.evaluation.metrics import Decision, score, tally_documents
from spacy_relx.evaluation.semeval import official_score

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spacy_relx.evaluation.records import PairRecord, RunInfo


def summarise(
    info: RunInfo,
    records: Iterable[PairRecord],
    decision: Decision | None = None,
    *,
    n_rounds: int = 1000,
    seed: int = 0,
    n_bins: int = 10,
) -> dict[str, Any]:
    """Score a run in every way.

    Args:
        info: The run.
        records: Its records.
        decision: Thresholds; None: every answer counts.
        n_rounds: Resamples of the confidence intervals; 0: none.
        seed: Of the resamples.
        n_bins: Bins of the calibration.

    Returns:
        The values of `Scores.to_dict`, and `dataset`, `split`, `protocol`, `way`, `thresholds`, `intervals`,
        `calibration` (`equal_width` and `equal_mass`), `average_precision`, `leaks`, and `semeval_official_macro_f`
        where it applies.
    """
    records = list(records)
    decision = decision or Decision(negative=info.negative)
    judged, n_gold = judge(info, records)
    result: dict[str, Any] = {
        "dataset": info.dataset,
        "split": info.split,
        "protocol": info.protocol,
        "way": info.way,
        "thresholds": {"threshold": decision.threshold, "labels": dict(decision.labels)},
        **score(info, records, decision).to_dict(),
        "intervals": {},
        "calibration": {},
        "average_precision": average_precision(precision_recall(judged, n_gold)),
        "leaks": leak_report(info, records, decision),
        "semeval_official_macro_f": _semeval(info, records, decision),
    }
    if n_rounds:
        found = intervals(tally_documents(info, records, decision), n_rounds=n_rounds, seed=seed)
        result["intervals"] = {name: interval.to_dict() for name, interval in found.items()}
    for binning in ("equal_width", "equal_mass"):
        measured = calibration(judged, n_bins=n_bins, binning=binning)
        result["calibration"][binning] = measured.to_dict() if measured is not None else None
    return result


def _semeval(info: RunInfo, records: list[PairRecord], decision: Decision) -> float | None:
    if info.protocol != "given" or not info.dataset.lower().startswith("semeval"):
        return None
    try:
        return official_score(info, records, decision)
    except DataError:  # a data set of that name with other labels
        return None
