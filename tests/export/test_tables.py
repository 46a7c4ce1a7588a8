import csv
import io
import json
from dataclasses import asdict

import duckdb
import pytest
from exported import HOSTILE, corpus, docs, hostile
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_relx.errors import ConfigError, DataError
from spacy_relx.export import Fact, Options, Triple, export, facts, merge_relations, triples
from spacy_relx.export.tables import write_csv, write_jsonl
from spacy_relx.export.triples import columns


def read_csv(text, delimiter=","):
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))


def as_text(row):
    return {name: str(value) for name, value in asdict(row).items()}


def test_a_row_is_one_place_of_a_relation():
    first, second, third = triples(iter(corpus()))
    assert (first.head, first.label, first.tail, first.score) == ("Marie Curie", "born_in", "Warsaw", 0.5)
    assert (first.doc, second.doc) == ("first", "2")
    assert first.sentence == "Marie Curie was born in Warsaw."
    text = corpus()[0].text
    assert text[first.head_start_char : first.head_end_char] == "Marie Curie"
    assert text[first.tail_start_char : first.tail_end_char] == "Warsaw"
    assert text[first.sentence_start_char :] == first.sentence
    assert first.head_id == second.head_id == "PERSON:marie curie"
    assert (first.tail_id, first.tail_kb_id, third.tail_kb_id) == ("kb:Q270", "Q270", "")
    assert third.sentence == corpus()[1].text  # from the head's sentence to the tail's


def test_a_merged_row_is_a_fact_with_counts_and_its_best_place():
    born, studied = facts(merge_relations(corpus()))
    assert (born.score, born.mean_score, born.count, born.n_docs) == (0.75, 0.625, 2, 2)
    assert (born.doc, born.sentence) == ("2", "MARIE CURIE, born in Warsaw.")
    assert (born.head_start_char, born.head_end_char) == (0, 11)
    assert (studied.count, studied.n_docs) == (1, 1)


def test_columns_begin_with_the_triple():
    assert list(columns(Triple))[:4] == ["head", "label", "tail", "score"]
    assert list(columns(Fact))[:7] == ["head", "label", "tail", "score", "mean_score", "count", "n_docs"]
    assert set(columns(Triple)) < set(columns(Fact))


@pytest.mark.parametrize("delimiter", [",", "\t"])
@given(doc=docs())
@settings(max_examples=60, deadline=None)
def test_what_csv_is_given_comes_back(delimiter, doc):
    rows = list(triples(doc))
    file = io.StringIO(newline="")
    write_csv(rows, Triple, file, delimiter=delimiter)
    assert read_csv(file.getvalue(), delimiter) == [as_text(row) for row in rows]


@given(doc=docs())
@settings(max_examples=60, deadline=None)
def test_what_jsonl_is_given_comes_back(doc):
    rows = list(triples(doc))
    file = io.StringIO(newline="")
    write_jsonl(rows, Triple, file)
    lines = file.getvalue().split("\n")
    assert [Triple(**json.loads(line)) for line in lines[:-1]] == rows
    assert lines[-1] == ""


@pytest.mark.parametrize("merge", [False, True])
def test_duckdb_reads_the_parquet(tmp_path, merge):
    path = tmp_path / "made" / "facts.parquet"
    given_docs = [*corpus(), hostile()]
    summary = export(given_docs, path, options=Options(merge=merge))
    rows = list(facts(merge_relations(given_docs)) if merge else triples(given_docs))
    table = duckdb.sql(f"SELECT * FROM '{path}'")
    names = table.columns
    assert [dict(zip(names, row, strict=True)) for row in table.fetchall()] == [asdict(row) for row in rows]
    best = duckdb.sql(f"SELECT max(score), count(*) FROM '{path}' WHERE label = 'born_in'").fetchall()
    assert best == [(0.75, 1 if merge else 2)]
    assert summary.n_relations == len(rows)
    assert summary.n_docs == 3
    assert list(path.parent.iterdir()) == [path]


def test_duckdb_reads_the_csv(tmp_path):
    path = tmp_path / "x.csv"
    export([*corpus(), hostile()], path)
    found = duckdb.sql(f"SELECT head, tail, score FROM read_csv('{path}', header=true, strict_mode=true)").fetchall()
    assert found == [(row.head, row.tail, row.score) for row in triples([*corpus(), hostile()])]


@given(text=st.text(max_size=3))
def test_guarded_text_is_no_formula(text):
    (row,) = [r for r in triples(corpus()) if r.label == "studied in"]
    values = {**asdict(row), "head": text}
    file = io.StringIO(newline="")
    write_csv([Triple(**values)], Triple, file, guard_formulas=True)
    (found,) = read_csv(file.getvalue())
    assert not found["head"].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert found["head"] in (text, f"'{text}")
    assert found["score"] == "0.25"  # numbers are numbers


def test_without_the_guard_text_is_as_it_was(tmp_path):
    export(hostile(), tmp_path / "x.csv")
    head, _ = read_csv((tmp_path / "x.csv").read_bytes().decode("utf8"))
    assert head["head"] == HOSTILE


def test_rows_are_written_while_docs_come(tmp_path):
    """No format that goes Doc by Doc waits for the last one."""
    seen = []

    def stream(n):
        for number in range(n):
            seen.append(number)
            yield corpus()[0]

    rows = triples(stream(3))
    next(rows)
    assert seen == [0]


@pytest.mark.parametrize("broken", ["no doc", [1]])
def test_only_docs_are_exported(tmp_path, broken):
    with pytest.raises(DataError, match="Expected a spaCy Doc"):
        export(broken, tmp_path / "x.csv")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_older_file(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("older")

    def stream():
        yield corpus()[0]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        export(stream(), path)
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("output", "name", "message"),
    [("x.xyz", None, "does not say its format"), ("x", "cvs", "Did you mean 'csv'"), ("-", None, "--format")],
)
def test_unknown_formats_say_what_there_is(output, name, message):
    with pytest.raises(ConfigError, match=message):
        export(corpus(), output, name)


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("spacy_relx.export.formats.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pyarrow.*spacy-relx\[export\]"):
        export(corpus(), tmp_path / "x.parquet")
    export(corpus(), tmp_path / "x.csv")  # what the base install can do, it does
