"""Scores of records: by hand, against the obvious count, and against scikit-learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from letters import record, run
from sklearn.metrics import precision_recall_fscore_support

from spacy_relx.errors import DataError
from spacy_relx.evaluation.counts import NEGATIVE_LABELS, Counts, Directions
from spacy_relx.evaluation.metrics import Decision, one_answer_ceiling, score, tally_documents, without_negative
from spacy_relx.evaluation.records import PairRecord, read_records, write_records


def test_by_hand() -> None:
    records = [
        record("ab", "r", "r"),  # a hit
        record("ac", "r", "s"),  # the wrong label: an invention and a miss
        record("ad", "s", None),  # a miss
        record("ae", (), "r"),  # an invention
        record("af", (), None),  # rightly nothing
        record("ag", "s", "junk", in_schema=False),  # outside the schema: an invention and a miss
        record("ah", "t", None, negative=None, enumerated=False),  # never asked about: a miss
    ]
    scores = score(run(), records)
    assert scores.micro == Counts(1, 4, 5)
    assert (scores.micro.p, scores.micro.r) == (0.25, 0.2)
    assert scores.micro.f == pytest.approx(2 / 9)
    assert scores.tally.per_label == {"r": Counts(1, 2, 2), "s": Counts(0, 1, 2), "t": Counts(0, 0, 1)}
    assert scores.tally.macro_f == pytest.approx(0.5 / 3)
    assert scores.tally.candidate_recall == 4 / 5
    assert scores.tally.false_positive_rate == 1 / 2
    assert (scores.tally.n_outside, scores.n_asked, scores.n_docs) == (1, 6, 1)
    assert scores.to_dict()["strict"] is None


def test_a_pair_with_several_labels_takes_one_answer() -> None:
    records = [record("ab", ("r", "s"), "s"), record("ac", ("r", "s", "t"), None), record("ad", "r", "r")]
    scores = score(run(), records)
    assert scores.micro == Counts(2, 2, 6)
    assert scores.ceiling == Counts(3, 3, 6)
    assert scores.ceiling.f == pytest.approx(2 / 3)


@pytest.mark.parametrize("negative", sorted(NEGATIVE_LABELS - {""}))
def test_negatives_are_out_of_the_average(negative: str) -> None:
    for written in (negative, negative.upper()):
        records = [
            record("ab", written, written),
            record("ac", "r", written),  # a confusion with the negative: a miss
            record("ad", written, "r"),  # and one the other way round: an invention
            record("ae", (), f" {written}\n", in_schema=False),
        ]
        assert score(run(), records).micro == Counts(0, 1, 1)


def test_thresholds_judge_labels_only() -> None:
    records = [
        record("ab", "r", "r", 0.5),
        record("ac", "s", "s", 0.4),
        record("ad", "r", "junk", 0.1, in_schema=False),
    ]
    assert score(run(), records, Decision(0.5)).micro == Counts(1, 2, 3)
    assert score(run(), records, Decision(0.5, {"s": 0.4, "r": 0.6})).micro == Counts(1, 2, 3)
    assert score(run(), records, Decision(1.0)).micro == Counts(0, 1, 3)


def test_without_the_negative_the_best_label_is_the_answer() -> None:
    beaten = record("ab", "s", None)
    records = [
        replace(beaten, scores=(("no_relation", 0.6), ("s", 0.3), ("r", 0.1))),
        record("ac", "r", "t", 0.8),
        record("ad", "r", None, enumerated=False),
        record("ae", "r", None),  # of which no label is known
    ]
    answers = list(without_negative(run(), records))
    assert [(r.answer, r.score) for r in answers] == [("s", 0.3), ("t", 0.8), (None, 0.0), (None, 0.0)]
    assert score(run(), answers).micro == Counts(1, 2, 4)
    with pytest.raises(DataError, match=r"The protocol is gold_entities\. Expected given"):
        list(without_negative(run("gold_entities"), records))
    with pytest.raises(DataError, match="letters: 'a' and 'f' in document d hold no relation"):
        list(without_negative(run(), [*records, record("af")]))


def test_given_pairs_are_rows_and_others_are_facts() -> None:
    directions = {"symmetric": ["s"], "mirrors": {"t": "r"}}
    # The first two state the symmetric fact twice; the third states a mirrored one in the other order.
    records = [record("ab", "s", "s"), record("ba", (), "s"), record("cd", (), "t"), record("dc", "r", None)]
    assert score(run("given", **directions), records).micro == Counts(1, 3, 2)
    scores = score(run("gold_entities", **directions), records)
    assert scores.micro == Counts(2, 2, 2)
    assert scores.tally.false_positive_rate == 0.0
    assert scores.ceiling == Counts(2, 2, 2)


def test_a_symmetric_gold_pair_is_reached_in_either_order() -> None:
    records = [record("ba", "s", None, negative=None, enumerated=False), record("ab", (), "s")]
    assert score(run("gold_entities", symmetric=["s"]), records).tally.candidate_recall == 1.0
    assert score(run("gold_entities"), records).tally.candidate_recall == 0.0


def test_strict_hits_need_the_right_types() -> None:
    records = [
        record("ab", "r", "r", types=("PER", "ORG"), gold_types=("PER", "ORG")),
        record("ac", "r", "r", types=("PER", "ORG"), gold_types=("PER", "LOC")),
    ]
    scores = score(run("predicted_entities"), records)
    assert scores.micro == Counts(2, 2, 2)
    assert scores.tally.strict == Counts(1, 2, 2)
    turned = record("ba", "s", "s", types=("A", "B"), gold_types=("A", "B"))
    assert score(run("predicted_entities", symmetric=["s"]), [turned]).tally.strict.hits == 1


def test_without_gold_there_is_nothing_to_divide_by() -> None:
    scores = score(run(), [record("ab", (), None)])
    assert (scores.micro.f, scores.tally.macro_f, scores.tally.candidate_recall) == (0.0, None, None)
    assert score(run(), []).tally.false_positive_rate is None


def test_documents_are_kept_apart() -> None:
    records = [record("ab", "r", "r", doc="x"), record("ab", "r", "s", doc="y"), record("ac", "r", "r", doc="x")]
    tallies = tally_documents(run(), records)
    assert {name: tally.micro for name, tally in tallies.items()} == {"x": Counts(2, 2, 2), "y": Counts(0, 1, 1)}


def test_records_survive_their_file(tmp_path: Any) -> None:
    records = [record("ab", "r", "r", gold_types=("A", "B"), seen="alike"), record("ac", (), None)]
    write_records(tmp_path / "run.jsonl", run(symmetric=["s"]), records)
    info, found = read_records(tmp_path / "run.jsonl")
    assert info == run(symmetric=["s"])
    assert list(found) == records


def test_files_that_are_no_records_are_named(tmp_path: Any) -> None:
    path = tmp_path / "run.jsonl"
    with pytest.raises(DataError, match="cannot be read"):
        read_records(path)
    path.write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match=r"run\.jsonl:1 does not describe"):
        read_records(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        read_records(path)
    write_records(path, run(), [record("ab", "r", "r")])
    path.write_text(path.read_text() + "{}\n")
    with pytest.raises(DataError, match=r"run\.jsonl:3 is no record"):
        list(read_records(path)[1])


# The obvious count

LABELS = ["r", "s", "t"]
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["x", "y"]),
        st.sampled_from([a + b for a in "abc" for b in "abc" if a != b]),
        st.sets(st.sampled_from(LABELS), max_size=2),
        st.sampled_from([*LABELS, None, "junk"]),
        st.sampled_from([0.2, 0.5, 0.8]),
        st.booleans(),
    ),
    max_size=12,
    unique_by=lambda row: row[:2],
)


def made(rows: Any) -> list[PairRecord]:
    return [
        record(pair, tuple(sorted(gold)), answer, value, doc=doc, in_schema=answer != "junk")
        if asked
        else record(pair, tuple(sorted(gold)), None, negative=None, doc=doc, enumerated=False)
        for doc, pair, gold, answer, value, asked in rows
    ]


@settings(max_examples=200, deadline=None)
@given(rows=ROWS, threshold=st.sampled_from([0.0, 0.5, 0.9]))
def test_scores_are_the_obvious_ones(rows: Any, threshold: float) -> None:
    hits = predicted = gold = negative = alarms = 0
    for _, _, labels, answer, value, asked in rows:
        gold += len(labels)
        says = asked and answer is not None and (value >= threshold or answer == "junk")
        predicted += says
        hits += says and answer in labels
        if asked and not labels:
            negative += 1
            alarms += says
    scores = score(run(), made(rows), Decision(threshold))
    assert scores.micro == Counts(hits, predicted, gold)
    assert (scores.tally.n_negative, scores.tally.n_false_alarms) == (negative, alarms)
    assert scores.tally.n_gold_pairs == sum(bool(row[2]) for row in rows)
    assert scores.tally.n_reached == sum(bool(row[2]) and row[5] for row in rows)


@settings(max_examples=100, deadline=None)
@given(rows=ROWS)
def test_facts_are_the_obvious_sets(rows: Any) -> None:
    """Symmetric and mirrored labels, counted with sets of strings."""

    def fact(doc: str, pair: str, label: str) -> tuple[str, str, str]:
        if label == "t":
            return doc, pair[::-1], "r"
        return (doc, "".join(sorted(pair)), "s") if label == "s" else (doc, pair, label)

    gold = {fact(row[0], row[1], label) for row in rows for label in row[2]}
    found = {fact(row[0], row[1], row[3]) for row in rows if row[5] and row[3] in LABELS}
    n_outside = sum(row[5] and row[3] == "junk" for row in rows)
    scores = score(run("gold_entities", symmetric=["s"], mirrors={"t": "r"}), made(rows))
    assert scores.micro == Counts(len(gold & found), len(found) + n_outside, len(gold))


@settings(max_examples=200, deadline=None)
@given(rows=ROWS)
def test_the_ceiling_is_the_best_there_is(rows: Any) -> None:
    """No choice of one answer a pair beats the ceiling, and answering with a gold label reaches it."""
    records = made([(*row[:5], True) for row in rows])
    ceiling = one_answer_ceiling(run(), records)
    best = [record(r.head.text + r.tail.text, r.gold, r.gold[0] if r.gold else None, doc=r.doc) for r in records]
    assert score(run(), best).micro == ceiling
    assert score(run(), records).micro.f <= ceiling.f + 1e-12


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from([*LABELS, "Other", None]), st.sampled_from([*LABELS, "Other", None, "junk", "x"])),
        min_size=1,
        max_size=25,
    )
)
def test_micro_f_is_that_of_scikit_learn(rows: list[tuple[str | None, str | None]]) -> None:
    """One gold label a pair; answers outside the schema are one more class there."""
    records = [
        record("ab", () if gold is None else gold, answer, doc=str(i), in_schema=answer not in ("junk", "x"))
        for i, (gold, answer) in enumerate(rows)
    ]
    true = ["NEGATIVE" if gold in (None, "Other") else gold for gold, _ in rows]
    said = ["NEGATIVE" if a in (None, "Other") else a if a in LABELS else "OUTSIDE" for _, a in rows]
    p, r, f, _ = precision_recall_fscore_support(
        true, said, labels=[*LABELS, "OUTSIDE"], average="micro", zero_division=0
    )
    micro = score(run(), records).micro
    assert (micro.p, micro.r, micro.f) == (pytest.approx(p), pytest.approx(r), pytest.approx(f))
    per_label = precision_recall_fscore_support(true, said, labels=LABELS, average=None, zero_division=0)[2]
    counts = score(run(), records).tally.per_label
    assert [counts[label].f if label in counts else 0.0 for label in LABELS] == pytest.approx(list(per_label))


def test_directions() -> None:
    directions = Directions(frozenset({"s"}), {"t": "r"})
    a, b = (0, 1), (1, 2)
    assert directions.fact("s", b, a) == directions.fact("s", a, b) == ("s", a, b)
    assert directions.fact("t", a, b) == ("r", b, a)
    assert directions.turned("t", a, b)
    assert not directions.turned("r", a, b)
