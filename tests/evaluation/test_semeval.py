"""The official score of SemEval-2010 Task 8, against the vectors that come with the official scorer."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from letters import record, run

from spacy_relx.errors import DataError
from spacy_relx.evaluation.counts import Counts
from spacy_relx.evaluation.records import RunInfo
from spacy_relx.evaluation.semeval import official_counts, official_macro_f, official_score

FILES = Path(__file__).parent.parent / "data" / "files" / "semeval_scorer"


def read(name: str) -> dict[str, str]:
    path = FILES / f"{name}.txt"
    text = path.read_text() if path.exists() else gzip.decompress((FILES / f"{name}.txt.gz").read_bytes()).decode()
    return dict(line.split("\t") for line in text.split("\n") if line)


@pytest.mark.parametrize(("number", "expected"), [(1, "64.09"), (2, "6.35"), (3, "11.11"), (5, "44.44")])
def test_the_shipped_vectors(number: int, expected: str) -> None:
    answers = {name: label.strip() for name, label in read(f"proposed_answer{number}").items()}
    key = {name: label.strip() for name, label in read(f"answer_key{number}").items()}
    assert f"{100 * official_macro_f(key, answers):.2f}" == expected


def test_single_relations_of_a_vector() -> None:
    key, answers = read("answer_key1"), read("proposed_answer1")
    counts = official_counts(*({name: label.strip() for name, label in rows.items()} for rows in (key, answers)))
    assert counts["Cause-Effect"] == Counts(2, 3, 6)
    assert counts["Message-Topic"] == Counts(3, 4, 5)
    assert len(counts) == 9


def test_a_run() -> None:
    e1, e2 = "Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)"
    records = [
        record("ab", e1, e1, doc="1"),
        record("ab", e1, e2, doc="2"),  # the wrong direction
        record("ab", (), e1, doc="3"),
        record("ab", e2, "nonsense", doc="4", in_schema=False),
        record("ab", "Message-Topic(e1,e2)", None, doc="5"),
    ]
    info = RunInfo("semeval2010_task8", "test", "given", (e1, e2), "Other")
    assert official_score(info, records) == pytest.approx((2 / 6) / 2)
    with pytest.raises(DataError, match="gold_entities"):
        official_score(run("gold_entities"), records)


def test_what_is_no_key_is_refused() -> None:
    with pytest.raises(DataError, match="'founded_by'"):
        official_counts({"1": "founded_by"}, {})
    with pytest.raises(DataError, match="'2'"):
        official_counts({"1": "Other"}, {"2": "Other"})
