"""Calibration, curves and thresholds, by hand and against the obvious search."""

from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from letters import record, run
from sklearn.metrics import average_precision_score, brier_score_loss

from spacy_relx.errors import DataError
from spacy_relx.evaluation.calibration import Judged, average_precision, calibration, judge, precision_recall
from spacy_relx.evaluation.counts import Counts
from spacy_relx.evaluation.metrics import Decision, score
from spacy_relx.evaluation.thresholds import find_thresholds
from spacy_relx.schema import load_schema

if TYPE_CHECKING:
    from pathlib import Path

    from spacy_relx.evaluation.records import PairRecord


def judged(*pairs: tuple[float, bool]) -> list[Judged]:
    return [Judged("r", value, right) for value, right in pairs]


def test_calibration_by_hand() -> None:
    answers = judged((0.95, True), (0.85, False), (0.15, False), (0.85, True))
    width = calibration(answers, n_bins=10)
    assert width is not None
    assert [(b.low, b.n, b.right) for b in width.bins] == [(0.1, 1, 0.0), (0.8, 2, 0.5), (0.9, 1, 1.0)]
    assert width.ece == pytest.approx((0.15 + 2 * 0.35 + 0.05) / 4)
    assert width.brier == pytest.approx((0.05**2 + 0.85**2 + 0.15**2 + 0.15**2) / 4)
    mass = calibration(answers, n_bins=2, binning="equal_mass")
    assert mass is not None
    assert [(b.low, b.high, b.n) for b in mass.bins] == [(0.15, 0.85, 2), (0.85, 0.95, 2)]
    assert calibration([]) is None
    with pytest.raises(DataError, match="n_bins is 0"):
        calibration(answers, n_bins=0)


SCORES = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30)


@settings(max_examples=100, deadline=None)
@given(pairs=SCORES, n_bins=st.integers(1, 12), binning=st.sampled_from(["equal_width", "equal_mass"]))
def test_bins_hold_every_answer_once(pairs: Any, n_bins: int, binning: Any) -> None:
    found = calibration(judged(*pairs), n_bins=n_bins, binning=binning)
    assert found is not None
    assert sum(b.n for b in found.bins) == found.n == len(pairs)
    assert all(b.low <= b.score + 1e-9 and b.score <= b.high + 1e-9 for b in found.bins)
    assert 0 <= found.ece <= 1
    if binning == "equal_mass":
        assert max(b.n for b in found.bins) - min(b.n for b in found.bins) <= 1


@settings(max_examples=100, deadline=None)
@given(pairs=SCORES)
def test_brier_and_average_precision_are_those_of_scikit_learn(pairs: Any) -> None:
    found = calibration(judged(*pairs))
    assert found is not None
    right, values = [right for _, right in pairs], [value for value, _ in pairs]
    assert found.brier == pytest.approx(brier_score_loss(right, values, pos_label=True))
    if any(right):
        points = precision_recall(judged(*pairs), sum(right))
        assert average_precision(points) == pytest.approx(average_precision_score(right, values))


def test_a_fact_is_judged_once_with_its_higher_score() -> None:
    records = [
        record("ab", "s", "s", 0.4),
        record("ba", (), "s", 0.7),
        record("cd", (), "junk", 0.2, in_schema=False),
        record("ce", "r", None),
    ]
    answers, n_gold = judge(run("gold_entities", symmetric=["s"]), records)
    assert n_gold == 2
    assert sorted((a.label, a.score, a.right) for a in answers) == [("", 0.2, False), ("s", 0.7, True)]


LABELS = ["r", "s"]
ANSWERS = st.lists(
    st.tuples(st.sampled_from([*LABELS, None]), st.sampled_from([*LABELS, None, "junk"]), st.integers(1, 9)),
    min_size=1,
    max_size=12,
)


def made(rows: Any) -> list[PairRecord]:
    return [
        record("ab", gold or (), answer, value / 10, doc=str(i), in_schema=answer != "junk")
        for i, (gold, answer, value) in enumerate(rows)
    ]


@settings(max_examples=100, deadline=None)
@given(rows=ANSWERS)
def test_the_curve_is_what_each_threshold_scores(rows: Any) -> None:
    info, records = run(), made(rows)
    for point in precision_recall(*judge(info, records)):
        assert point.counts == score(info, records, Decision(point.threshold)).micro


@settings(max_examples=150, deadline=None)
@given(rows=ANSWERS)
def test_thresholds_are_the_best_there_are(rows: Any) -> None:
    info, records = run(), made(rows)
    found = find_thresholds(info, records, min_gold=1)
    tries = [(i + 0.5) / 10 for i in range(10)]
    common = max(score(info, records, Decision(value)).micro.f for value in tries)
    labels = max(
        score(info, records, Decision(1.0, dict(zip(LABELS, values)))).micro.f for values in product(tries, repeat=2)
    )
    assert found.before == score(info, records).micro
    assert found.common.f == pytest.approx(common)
    if found.threshold is None:
        assert common == 0
        return
    assert score(info, records, Decision(found.threshold)).micro == found.common
    assert score(info, records, Decision(found.threshold, found.labels)).micro == found.after
    assert found.after.f >= found.common.f - 1e-12
    gold = {row[0] for row in rows}
    if gold >= set(LABELS):
        assert found.after.f == pytest.approx(labels)


def test_thresholds_lie_between_scores() -> None:
    records = [record("ab", "r", "r", 0.8), record("ac", (), "r", 0.4), record("ad", (), "s", 0.3)]
    found = find_thresholds(run(), records, min_gold=1)
    assert found.threshold == 0.6
    assert found.labels == {"r": 0.6}
    assert (found.before, found.after) == (Counts(1, 3, 1), Counts(1, 1, 1))


def test_rare_labels_take_the_common_threshold() -> None:
    records = [record("ab", "r", "r", 0.8, doc=str(i)) for i in range(10)] + [record("ac", "s", "s", 0.9)]
    assert set(find_thresholds(run(), records).labels) == {"r"}
    assert find_thresholds(run(), records, per_label=False).labels == {}


@pytest.mark.parametrize("split", ["test", "Test", "conll04-test"])
def test_test_data_are_refused(split: str) -> None:
    with pytest.raises(DataError, match="development"):
        find_thresholds(run(split=split), [record("ab", "r", "r")])


def test_what_is_written_is_what_the_component_takes(tmp_path: Path) -> None:
    schema = {"name": "letters", "no_relation": "no_relation", "labels": {"r": {}, "s": {"head": ["A"]}, "t": None}}
    records = [record("ab", "r", "r", 0.8), record("ac", "s", "s", 0.4), record("ad", (), "r", 0.3)]
    found = find_thresholds(run(schema=schema), records, min_gold=1)
    found.write(tmp_path / "thresholds.json")
    data = json.loads((tmp_path / "thresholds.json").read_text())
    assert data["threshold"] == found.threshold
    assert data["labels"] == found.labels
    found.write_schema(tmp_path / "labels.json")
    loaded = load_schema(tmp_path / "labels.json")
    assert {label.name: label.threshold for label in loaded} == {**found.labels, "t": None}
    assert loaded["s"].head == ("A",)
    with pytest.raises(DataError, match="does not say"):
        find_thresholds(run(), records).schema_with_thresholds()


def test_nothing_right_gives_no_threshold() -> None:
    assert find_thresholds(run(), [record("ab", "r", "s")]).threshold is None
    assert find_thresholds(run(), []).threshold is None
