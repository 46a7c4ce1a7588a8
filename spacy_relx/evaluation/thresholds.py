"""Thresholds from the stored records of a development set; the model is not asked again."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spacy_relx._json import parse_json
from spacy_relx.errors import DataError
from spacy_relx.evaluation.calibration import judge, precision_recall
from spacy_relx.evaluation.counts import Counts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from spacy_relx.evaluation.calibration import Judged
    from spacy_relx.evaluation.records import PairRecord, RunInfo

#: A label with fewer gold facts in the development set takes the common threshold.
MIN_GOLD = 10


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The thresholds with the best micro-F on a development set.

    Attributes:
        threshold: For every label that has none of its own, 0..1; None if no threshold gives a hit.
        labels: By label.
        before: Counts with no threshold.
        common: Counts with `threshold` for all labels.
        after: Counts with `labels` too.
        run: What the records came from.
        schema: The run's schema as plain data, if it is known.
    """

    threshold: float | None
    labels: Mapping[str, float]
    before: Counts
    common: Counts
    after: Counts
    run: Mapping[str, Any] = field(default_factory=dict)
    schema: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: `threshold` and `labels` are what the component's settings of these names take."""
        return {
            "threshold": self.threshold,
            "labels": dict(self.labels),
            "micro_f": {"none": self.before.f, "common": self.common.f, "per_label": self.after.f},
            "run": dict(self.run),
        }

    def schema_with_thresholds(self) -> dict[str, Any]:
        """Return the content of a schema file: the run's labels, each with its threshold.

        Raises:
            DataError: If the records do not say what the schema was.
        """
        if self.schema is None:
            raise DataError("The run does not say what its schema was. Expected records of `evaluate`.")
        entries = {name: dict(entry or {}) for name, entry in self.schema["labels"].items()}
        for name, value in self.labels.items():
            if name in entries:
                entries[name]["threshold"] = value
        return {**self.schema, "labels": entries}

    def write(self, path: Path) -> None:
        """Write `to_dict` as JSON."""
        _write_json(path, self.to_dict())

    def write_schema(self, path: Path) -> None:
        """Write `schema_with_thresholds` as JSON, for `spacy-relx.Schema.v1` with `path`."""
        _write_json(path, self.schema_with_thresholds())


@dataclass(frozen=True, slots=True)
class StoredThresholds:
    """What `Thresholds.write` wrote, as it is read again.

    Attributes:
        threshold: For every label that has none of its own, 0..1; None: there is none.
        labels: By label.
        run: What the thresholds were found on; empty where somebody else wrote the file.
    """

    threshold: float | None
    labels: Mapping[str, float] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> StoredThresholds:
        """Read a file of thresholds.

        Raises:
            DataError: If the file cannot be read, or holds something else.
        """
        try:
            data = parse_json(path.read_text(encoding="utf-8"))
            common = None if data["threshold"] is None else float(data["threshold"])
            labels = {str(label): float(value) for label, value in data["labels"].items()}
            run = dict(data.get("run") or {})
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                f"{path} holds no thresholds ({type(error).__name__}: {error}). Expected what `evaluate threshold` "
                'writes: a JSON object with the keys "threshold" and "labels".'
            ) from error
        if any(not 0 <= value <= 1 for value in (*labels.values(), common or 0.0)):
            raise DataError(f"{path} has a threshold outside 0..1. Expected probabilities.")
        return cls(common, labels, run)

    def is_for(self, info: RunInfo) -> bool:
        """Tell whether the thresholds were found for the task and the model of a run.

        Raises:
            DataError: If they were found on the split that the run is about.
        """
        task = {"dataset": info.dataset, "protocol": info.protocol}
        own = {key: info.settings.get(key) for key in ("model", "scoring", "decoding")}
        if any(key in self.run and self.run[key] != value for key, value in (task | own).items()):
            return False
        if self.run.get("split") == info.split:
            raise DataError(
                f"The thresholds were found on {info.dataset} {info.split}, and the run is about the same split. "
                "Expected thresholds of development data: others make the scores worthless."
            )
        return True


def find_thresholds(
    info: RunInfo, records: Iterable[PairRecord], *, per_label: bool = True, min_gold: int = MIN_GOLD
) -> Thresholds:
    """Find the thresholds with the best micro-F.

    Thresholds of single labels are exact too, not found one after the other: for an F that is to be reached, every
    label by itself drops what costs more than it brings, and that F is raised until nothing changes (Dinkelbach 1967).

    Args:
        info: The run.
        records: Its records.
        per_label: Whether labels get thresholds of their own.
        min_gold: Least gold facts of a label that gets one.

    Raises:
        DataError: If the records are of a test set, or were answered without scores to compare.
    """
    if "test" in info.split.lower():
        raise DataError(
            f"The records are of the split {info.split!r}. Expected a development set: thresholds that were chosen on "
            "test data make its scores worthless. Run `evaluate` on the development data."
        )
    records = list(records)
    judged, n_gold = judge(info, records)
    n_outside = sum(not answer.in_schema for answer in judged)
    answers = [answer for answer in judged if answer.in_schema]
    before = Counts(sum(a.right for a in answers), len(judged), n_gold)
    best = max(precision_recall(judged, n_gold), key=lambda point: point.counts.f, default=None)
    run = {
        "dataset": info.dataset,
        "split": info.split,
        "protocol": info.protocol,
        "n_answers": len(judged),
        "n_gold": n_gold,
        "model": info.settings.get("model"),
        "scoring": info.settings.get("scoring"),
        "decoding": info.settings.get("decoding"),
        "schema": (info.settings.get("schema") or {}).get("name"),
    }
    schema = info.settings.get("schema")
    if best is None or best.counts.hits == 0:
        return Thresholds(None, {}, before, before, before, run, schema)
    threshold = _between(best.threshold, answers)
    labels: dict[str, float] = {}
    after = best.counts
    if per_label:
        gold = _gold_by_label(info, records)
        own = {a.label for a in answers if gold.get(a.label, 0) >= min_gold}
        labels, after = _per_label(answers, own, threshold, n_outside, n_gold)
    return Thresholds(threshold, labels, before, best.counts, after, run, schema)


def _per_label(
    answers: Sequence[Judged], own: set[str], threshold: float, n_outside: int, n_gold: int
) -> tuple[dict[str, float], Counts]:
    by_label: dict[str, list[Judged]] = defaultdict(list)
    for answer in answers:
        by_label[answer.label].append(answer)
    # What one label may contribute: (hits, predicted, threshold), from dropping everything to keeping everything.
    choices: dict[str, list[tuple[int, int, float]]] = {}
    for label, found in by_label.items():
        if label not in own:
            kept = [a for a in found if a.score >= threshold]
            choices[label] = [(sum(a.right for a in kept), len(kept), threshold)]
            continue
        points = precision_recall(found, 1)
        choices[label] = [(0, 0, 1.0)] if found and max(a.score for a in found) < 1.0 else []
        choices[label] += [(p.counts.hits, p.counts.predicted, _between(p.threshold, found)) for p in points]
    # F = 2 hits / (predicted + gold). At the best F, the labels' 2 hits - F predicted are as large as they can be.
    goal = 0.0
    while True:
        # Of two equal choices the more lenient one: a threshold should not forbid more than the data ask for.
        picked = {
            label: max(options, key=lambda o: (2 * o[0] - goal * o[1], o[1])) for label, options in choices.items()
        }
        counts = Counts(sum(o[0] for o in picked.values()), sum(o[1] for o in picked.values()) + n_outside, n_gold)
        if counts.f <= goal + 1e-12:
            break
        goal = counts.f
    return {label: picked[label][2] for label in sorted(own)}, counts


def _gold_by_label(info: RunInfo, records: Sequence[PairRecord]) -> dict[str, int]:
    from spacy_relx.evaluation.metrics import score

    return dict(score(info, records).tally.gold)


def _between(score: float, answers: Sequence[Judged]) -> float:
    """A threshold that keeps this score and drops the next lower one, as far from both as possible."""
    lower = max((a.score for a in answers if a.score < score), default=0.0)
    middle = (score + lower) / 2
    short = round(middle, 6)
    return short if lower < short <= score else middle if lower < middle else score


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
