"""From files of records to a report's contents; every figure is computed by `spacy_relx.evaluation`."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

from spacy_relx.data import DATASETS
from spacy_relx.errors import DataError
from spacy_relx.evaluation.bootstrap import compare, intervals
from spacy_relx.evaluation.calibration import average_precision, calibration, judge, precision_recall
from spacy_relx.evaluation.counts import negative_labels
from spacy_relx.evaluation.metrics import (
    Decision,
    by_document,
    directions_for,
    gold_facts,
    places,
    score,
    tally_documents,
)
from spacy_relx.evaluation.records import read_records
from spacy_relx.evaluation.semeval import official_score
from spacy_relx.report.confusion import confusion_counts
from spacy_relx.report.contents import Comparison, LabelRow, Report, RunReport, Scores
from spacy_relx.report.published import dataset_key, figures_for
from spacy_relx.report.samples import draw_samples
from spacy_relx.report.thresholds import at_thresholds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from spacy_relx.evaluation.calibration import CurvePoint
    from spacy_relx.evaluation.counts import Tally
    from spacy_relx.evaluation.records import PairRecord, RunInfo
    from spacy_relx.evaluation.thresholds import StoredThresholds

SEMEVAL = "semeval2010_task8"
#: Points of a precision-recall curve that a picture can show.
_MAX_POINTS = 400


@dataclass(frozen=True)
class Options:
    """What a report is made with.

    Attributes:
        title: Of the report.
        threshold: Answers with a lower score count as none; None: all count.
        thresholds: What was found on development data; runs that it was found for have a table of thresholds.
        n_samples: Errors of each kind to show; 0 keeps texts out of the report.
        n_rounds: Bootstrap resamples of the intervals.
        n_test_rounds: Resamples and random swaps of the comparisons.
        confidence: Of the intervals, between 0 and 1.
        seed: Of the samples and of everything drawn at random.
    """

    title: str = "Relation extraction report"
    threshold: float | None = None
    thresholds: tuple[StoredThresholds, ...] = ()
    n_samples: int = 8
    n_rounds: int = 1000
    n_test_rounds: int = 10_000
    confidence: float = 0.95
    seed: int = 0


def make_report(paths: Sequence[Path], options: Options | None = None) -> Report:
    """Read runs and gather what a report says of them.

    Every two runs of the same data set, split and protocol, asked in the published way or both not, are compared; the
    difference is the later one's minus the earlier one's.

    Args:
        paths: Files of `evaluate` or `baseline`.
        options: What the report is made with.

    Raises:
        DataError: If no file is given, or one cannot be read.
    """
    options = options or Options()
    if not paths:
        raise DataError("No run was given. Expected one or more files of records.")
    runs: list[RunReport] = []
    tallies: dict[str, dict[str, Tally]] = {}
    for name, path in zip(_names(paths), paths):
        info, records = load_run(path)
        decision = Decision(options.threshold or 0.0, negative=info.negative)
        tallies[name] = tally_documents(info, records, decision)
        runs.append(_report_run(name, info, records, decision, tallies[name], options))
    comparisons, notes = _compare(runs, tallies, options)
    notes += [
        f"No run here is of the data set, protocol and model that thresholds were found for: {_task(stored)}."
        for stored in options.thresholds
        if not any(stored.is_for(run.info) for run in runs)
    ]
    notes += [
        f"No threshold gives a right answer on the development data of {_task(stored)}, so none is called best."
        for stored in options.thresholds
        if stored.threshold is None
    ]
    notes += [
        f"{run.name} is about {run.part[0]:,} of the {run.part[1]:,} texts of {run.dataset}, {run.info.split}; the "
        "published figures are about all of them."
        for run in runs
        if run.part is not None
    ]
    return Report(
        title=options.title,
        runs=tuple(runs),
        comparisons=tuple(comparisons),
        confidence=options.confidence,
        n_resamples=options.n_rounds,
        notes=tuple(notes),
    )


def _task(stored: StoredThresholds) -> str:
    return ", ".join(str(stored.run[key]) for key in ("dataset", "split", "protocol") if key in stored.run)


def load_run(path: Path) -> tuple[RunInfo, list[PairRecord]]:
    """Read a run; the pairs of one document share its text.

    Raises:
        DataError: If the file cannot be read or holds no records.
    """
    info, stream = read_records(path)
    texts: dict[str, str] = {}
    records = [replace(record, text=texts.setdefault(record.text, record.text)) for record in stream]
    if not records:
        raise DataError(f"{path} holds no records. Expected at least one pair; was the data set empty?")
    return info, records


def settle(info: RunInfo, records: Iterable[PairRecord], decision: Decision) -> Iterator[PairRecord]:
    """Yield the records as they were counted: with the answers that count and the gold labels that apply.

    Where a label holds in both orders of a pair, an answer about the one order settles the gold label of the other.
    """
    directions, negatives = directions_for(info), negative_labels(info.negative)
    for doc in by_document(records).values():
        gold = gold_facts(doc, directions, negatives)
        answers = [decision.answer(record) for record in doc]
        predicted = {
            directions.fact(answer, *places(record))
            for record, answer in zip(doc, answers)
            if answer is not None and record.in_schema
        }
        for record, answer in zip(doc, answers):
            own = [label for label in record.gold if label.lower() not in negatives]
            is_hit = answer is not None and record.in_schema and directions.fact(answer, *places(record)) in gold
            left = [
                label for label in own if label == answer or directions.fact(label, *places(record)) not in predicted
            ]
            if is_hit and answer is not None and answer not in left:
                left.append(answer)
            if own and not left and answer is None:
                continue  # the other order of the pair was answered with what holds here
            yield replace(record, gold=tuple(left), answer=answer, in_schema=record.in_schema or answer is None)


def _report_run(
    name: str,
    info: RunInfo,
    records: Sequence[PairRecord],
    decision: Decision,
    tallies: Mapping[str, Tally],
    options: Options,
) -> RunReport:
    found = score(info, records, decision)
    micro = found.micro
    ranges = intervals(tallies, n_rounds=options.n_rounds, level=options.confidence, seed=options.seed)
    judged, n_gold = judge(info, records)
    points = precision_recall(judged, n_gold)
    calibrated = calibration([answer for answer in judged if answer.in_schema])
    settled = list(settle(info, records, decision))
    labels = [
        LabelRow(label, c.p if c.predicted else None, c.r if c.gold else None, c.f, c.gold, c.predicted, c.hits)
        for label, c in found.tally.per_label.items()
    ]
    more = _more(info, records, decision)
    if found.typed:
        more.append(("micro-F1 with right entity types", found.tally.strict.f))
    if points:
        more.append(("average precision", average_precision(points)))
    return RunReport(
        name=name,
        info=info,
        threshold=options.threshold,
        scores=Scores(
            p=micro.p if micro.predicted else None,
            r=micro.r if micro.gold else None,
            f=micro.f if micro.gold else None,
            macro_f=found.tally.macro_f,
            interval=(ranges["micro_f"].low, ranges["micro_f"].high) if ranges and micro.gold else None,
            ceiling=found.ceiling.f if micro.gold else None,
            candidate_recall=found.tally.candidate_recall,
            false_positive_rate=found.tally.false_positive_rate,
            n_pairs=found.n_asked,
            n_gold=micro.gold,
            more=tuple(more),
        ),
        labels=tuple(sorted(labels, key=lambda row: (-row.n_gold, -row.n_answered, row.label))),
        confusions=confusion_counts(settled),
        curve=tuple((point.counts.r, point.counts.p) for point in _thin(points)),
        bins=tuple((b.score, b.right, b.n) for b in calibrated.bins) if calibrated else (),
        ece=calibrated.ece if calibrated else None,
        samples=draw_samples(settled, n_each=options.n_samples, seed=options.seed),
        at=at_thresholds(
            info,
            records,
            options.thresholds,
            n_rounds=options.n_rounds,
            level=options.confidence,
            seed=options.seed,
        ),
        part=_part(info, tallies),
    )


def _part(info: RunInfo, names: Iterable[str]) -> tuple[int, int] | None:
    """Tell whether a run has clearly fewer texts than the published figures that stand beside it."""
    names = set(names)
    key = dataset_key(info.dataset)
    if key is None or key not in DATASETS or not figures_for(info):
        return None
    if "level" in DATASETS[key].options and any("#" in name for name in names):
        # Sentences, named "title#number", and the published size counts whole documents.
        n_docs = len({name.rpartition("#")[0] or name for name in names})
    else:
        n_docs = max(len(names), int(info.counts.get("n_docs", 0)))
    n_rows = next((split.n_rows for split in DATASETS[key].splits if split.name == info.split), 0)
    # A few texts of a set may have no pair at all.
    return (n_docs, n_rows) if n_docs < 0.95 * n_rows else None


def _more(info: RunInfo, records: Sequence[PairRecord], decision: Decision) -> list[tuple[str, float | None]]:
    more: list[tuple[str, float | None]] = []
    if dataset_key(info.dataset) == SEMEVAL and info.protocol == "given":
        with suppress(DataError):  # raised if the labels are not the task's own
            more.append(("SemEval's official macro-F1", official_score(info, records, decision)))
    unseen = [record for record in records if not record.seen]
    if len(unseen) < len(records):
        micro = score(info, unseen, decision).micro
        more.append(("micro-F1 without sentences of the training data", micro.f if micro.gold else None))
    return more


def _compare(
    runs: Sequence[RunReport], tallies: Mapping[str, dict[str, Tally]], options: Options
) -> tuple[list[Comparison], list[str]]:
    found: list[Comparison] = []
    notes: list[str] = []
    for first, second in combinations(runs, 2):
        if first.group != second.group:
            continue
        try:
            result = compare(
                tallies[first.name],
                tallies[second.name],
                n_rounds=options.n_test_rounds,
                level=options.confidence,
                seed=options.seed,
            )
        except DataError as error:
            notes.append(f"{first.name} and {second.name} cannot be compared. {error}")
            continue
        interval = (result.difference.low, result.difference.high)
        found.append(
            Comparison(second.group, second.name, first.name, result.difference.value, interval, result.p_value)
        )
    return found, notes


def _names(paths: Sequence[Path]) -> list[str]:
    """Name runs by their files; files of one name get their folder in front, and a number if that is no help."""
    stems = [path.name.removesuffix(".gz").removesuffix(".jsonl") for path in paths]
    often = Counter(stems)
    names = [stem if often[stem] == 1 else f"{path.resolve().parent.name}/{stem}" for stem, path in zip(stems, paths)]
    often = Counter(names)
    seen: Counter[str] = Counter()
    for place, name in enumerate(names):
        if often[name] > 1:
            seen[name] += 1
            names[place] = f"{name} ({seen[name]})"
    return names


def _thin(points: Sequence[CurvePoint]) -> Sequence[CurvePoint]:
    """Keep so many points that a picture is not larger than it can show, the first and the last among them."""
    if len(points) <= _MAX_POINTS:
        return points
    step = (len(points) - 1) / (_MAX_POINTS - 1)
    return [points[round(i * step)] for i in range(_MAX_POINTS)]
