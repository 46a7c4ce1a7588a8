"""What a report says, as plain values: one run's figures, two runs compared. How they look is not decided here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spacy_relx.report.published import dataset_title

if TYPE_CHECKING:
    from collections import Counter

    from spacy_relx.evaluation.records import RunInfo, Way
    from spacy_relx.report.samples import Kind, Sample
    from spacy_relx.report.thresholds import AtThreshold

#: Stands where there is no value.
DASH = "\N{EN DASH}"

#: What each protocol, or way of asking, is called, and what its figures mean.
WAY_TITLES: dict[Way, tuple[str, str]] = {
    "published": (
        "Given pairs, asked as published",
        "The annotated pairs in the wording and decoding of the published evaluation: the gold labels of the split are "
        "listed, two demonstrations are shown, and any answer may be written. Only figures of this section were "
        "measured as the published ones were.",
    ),
    "given": (
        "Given pairs",
        "Only the annotated pairs are asked about: the pairs of the published evaluations, whose wording and decoding "
        "may be others (see the runs' settings). Figures are higher here than in a pipeline, where most pairs hold no "
        "relation.",
    ),
    "gold_entities": (
        "All pairs of gold entities",
        "Every candidate pair of the annotated entities is asked about, so a relation has to be told from none. Not "
        "comparable with figures on given pairs.",
    ),
    "predicted_entities": (
        "All pairs of predicted entities",
        "Entities come from a recogniser, as in use. An entity that was missed or cut differently costs every relation "
        "it takes part in.",
    ),
}


@dataclass(frozen=True, slots=True)
class Scores:
    """The figures of one run; those that do not apply are None.

    Attributes:
        p: Precision over the positive labels, pooled.
        r: Recall, likewise.
        f: Positive-class micro-F1.
        macro_f: Mean F1 of the labels.
        interval: Bootstrap interval of `f` over documents.
        ceiling: Best `f` that one answer a pair can reach.
        candidate_recall: Share of gold relations whose pair was asked about.
        false_positive_rate: Share of negative pairs that were given a label.
        n_pairs: Pairs asked about.
        n_gold: Gold relations.
        more: Other figures with their names.
    """

    p: float | None
    r: float | None
    f: float | None
    macro_f: float | None
    interval: tuple[float, float] | None
    ceiling: float | None
    candidate_recall: float | None
    false_positive_rate: float | None
    n_pairs: int
    n_gold: int
    more: tuple[tuple[str, float | None], ...] = ()


@dataclass(frozen=True, slots=True)
class LabelRow:
    """The figures of one label."""

    label: str
    p: float | None
    r: float | None
    f: float | None
    n_gold: int
    n_answered: int
    n_hits: int


@dataclass(frozen=True, slots=True)
class RunReport:
    """Everything that a report says of one run.

    Attributes:
        name: What the run is called in the report; no two are alike.
        info: What the file says of the run.
        threshold: Answers with a lower score counted as none, if one was given.
        scores: Its figures.
        labels: Per label, those with most gold relations first.
        confusions: (gold, answer) -> number of pairs.
        curve: (recall, precision) at falling thresholds.
        bins: (mean score, share of right answers, number of answers).
        ece: Expected calibration error, or None.
        samples: Errors of each kind: how many, and some to read.
        at: Its figures at thresholds, where some were found for it.
        part: (texts of the run, texts of the whole set) where the run has fewer than published figures are about.
    """

    name: str
    info: RunInfo
    threshold: float | None
    scores: Scores
    labels: tuple[LabelRow, ...]
    confusions: Counter[tuple[str, str]]
    curve: tuple[tuple[float, float], ...] = ()
    bins: tuple[tuple[float, float, int], ...] = ()
    ece: float | None = None
    samples: Mapping[Kind, tuple[int, list[Sample]]] = field(default_factory=dict)
    at: tuple[AtThreshold, ...] = ()
    part: tuple[int, int] | None = None

    @property
    def dataset(self) -> str:
        """Name of the data set as people write it."""
        return dataset_title(self.info.dataset)

    @property
    def group(self) -> tuple[str, str, Way]:
        """Runs of one group answer the same questions."""
        return (self.info.dataset, self.info.split, self.info.way)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs on the same questions.

    Attributes:
        group: Data set, split, and protocol or way of asking.
        name: The run.
        other: The run that it is compared with.
        difference: Its micro-F1 minus the other's.
        interval: Bootstrap interval of the difference, or None.
        p_value: Of the paired test.
    """

    group: tuple[str, str, Way]
    name: str
    other: str
    difference: float
    interval: tuple[float, float] | None
    p_value: float

    @property
    def dataset(self) -> str:
        """Name of the data set as people write it, with the split."""
        return f"{dataset_title(self.group[0])}, {self.group[1]}"


@dataclass(frozen=True, slots=True)
class Report:
    """Runs and their comparisons.

    Attributes:
        title: Of the report.
        runs: In the order in which they were given.
        comparisons: Of runs that answered the same questions.
        confidence: Of all intervals, 0..1.
        n_resamples: Bootstrap samples behind the intervals.
        notes: What the reader should know, such as runs that could not be compared.
    """

    title: str
    runs: tuple[RunReport, ...]
    comparisons: tuple[Comparison, ...] = ()
    confidence: float = 0.95
    n_resamples: int = 0
    notes: tuple[str, ...] = ()


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Turn nested settings into (dotted key, text) pairs for a table."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            rows += flatten(value, f"{name}.")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            rows.append((name, ", ".join(str(item) for item in value) or DASH))
        else:
            rows.append((name, DASH if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)))
    return rows
