"""Every data set in its own format: what the Docs have, what is reported, and what malformed rows do."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.tokens import Doc, DocBin
from spacy.util import registry

from spacy_relx.data import DATASETS, GOLD_SPANS, DataSet, Mention, Problem, Report, Row, dataset, doc_id, read_docs
from spacy_relx.data.base import join_words
from spacy_relx.data.docs import OVERLAP, SPLIT_TOKENS, TWICE, make_doc
from spacy_relx.data.registered import make_reader
from spacy_relx.errors import DataError, RelxWarning

FILES = Path(__file__).parent / "files"
README = Path(__file__).parents[2] / "README.md"


def read(name: str, path: Path | str, **kwargs: Any) -> tuple[list[Doc], Report]:
    report = Report()
    docs = list(read_docs(dataset(name), FILES / path, spacy.blank("en"), report=report, **kwargs))
    assert report.n_docs == len(docs)
    return docs, report


def ents(doc: Doc) -> list[tuple[str, str]]:
    return [(ent.text, ent.label_) for ent in doc.ents]


def reasons(report: Report) -> dict[str, int]:
    return {reason: n for _, reason, n, _ in report.reasons()}


def test_semeval() -> None:
    docs, report = read("semeval2010_task8", "semeval.TXT")
    assert [doc_id(doc) for doc in docs] == ["1", "2", "5"]
    assert [doc._.triples for doc in docs] == [
        [("configuration", "Component-Whole(e2,e1)", "elements")],
        [("child", "Other", "cradle")],
        [("student", "Member-Collection(e1,e2)", "association")],
    ]
    assert docs[1].text == "The child was carefully wrapped and bound into the cradle by means of a cord."
    assert ents(docs[1]) == [("child", "ENTITY"), ("cradle", "ENTITY")]
    assert (report.n_rows, report.n_relations, report.n_negatives, report.problems) == (3, 2, 1, [])


def test_kbp37() -> None:
    docs, report = read("kbp37", "kbp37.txt")
    assert docs[0]._.triples == [("Mira Oslund", "per:employee_of(e1,e2)", "Harbour Trust")]
    assert docs[0].text == "Mira Oslund runs the Harbour Trust of Velden ."
    assert docs[1]._.triples == [("Velden", "no_relation", "Oslund")]
    (problem,) = report.problems
    assert str(problem).startswith(f"{FILES / 'kbp37.txt'}:9: a marked entity is empty: <e1> </e1>")
    assert (report.n_rows, report.n_docs, report.n_negatives) == (3, 2, 1)


def test_scierc() -> None:
    docs, _ = read("scierc", "scierc.txt")
    assert docs[0]._.triples[0][0::2] == (
        "algorithm",
        "computing optical flow , shape , motion , lighting , and albedo",
    )
    assert docs[1]._.triples == [("image sequence", "USED-FOR", "algorithm")]
    head, tail = docs[1]._.relations[0].head, docs[1]._.relations[0].tail
    metadata = json.loads((FILES / "scierc.txt").read_text().splitlines()[1])["metadata"]
    assert [head.start, head.end - 1, tail.start, tail.end - 1] == metadata


@pytest.mark.parametrize("path", ["conll04_tags.json", "conll04_spans.json"])
def test_both_forms_of_conll04(path: str) -> None:
    docs, report = read("conll04", path)
    assert ents(docs[0]) == [("Mira Oslund", "Peop"), ("Acme", "Org"), ("Velden", "Loc"), ("Norland", "Loc")]
    assert docs[0]._.triples == [
        ("Mira Oslund", "Work_For", "Acme"),
        ("Mira Oslund", "Live_In", "Velden"),
        ("Velden", "Located_In", "Norland"),
    ]
    assert [doc_id(doc) for doc in docs] == ["11", "12"]
    assert (docs[1].ents, docs[1]._.relations) == ((), [])
    assert docs[1].has_annotation("ENT_IOB")
    assert report.problems == []


@pytest.mark.parametrize("tags", [["I-Peop", "O"], ["B-Peop", "O"], ["B-Peop", "L-Org"], ["X", "O"], ["O"], ["U", "O"]])
def test_tags_that_make_no_sense_are_a_malformed_row(tags: list[str], tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(json.dumps([{"tokens": ["a", "b"], "tags": tags, "relations": []}]))
    docs, report = read("conll04", tmp_path / "bad.json")
    assert (docs, report.n_rows) == ([], 1)
    assert report.problems[0].place == f"{tmp_path / 'bad.json'}:1 (record 1)"


def test_nyt_triples_are_aligned_and_what_cannot_be_is_reported() -> None:
    docs, report = read("nyt11", "nyt.json")
    assert docs[0]._.triples == [
        ("Norland", "/location/location/contains", "Velden"),
        ("Norland", "/location/country/capital", "Velden"),
        ("Mira Oslund", "/people/person/place_of_birth", "Velden"),
    ]
    assert ents(docs[0]) == [("Mira Oslund", "ENTITY"), ("Velden", "ENTITY"), ("Norland", "ENTITY")]
    assert docs[1]._.triples == [("Norland", "/location/location/contains", "Cancun")]
    assert [token.text for token in docs[1]][3:5] == ["Norland", "-based"]
    assert reasons(report) == {
        "an argument that is not in the text": 1,
        TWICE: 1,
        SPLIT_TOKENS: 1,
        "an entity occurs several times: the first is taken": 1,
        "an entity found only without its accents": 1,
    }
    lost = report.problems[[problem.what for problem in report.problems].index("relation")]
    assert "'Acme' of ('Oslund', '/business/person/company', 'Acme')" in lost.detail
    with pytest.raises(DataError, match=r"nyt\.json:\d+ \(record 2\): an argument that is not in the text: 'Acme'"):
        read("nyt11", "nyt.json", on_error="raise")


def test_nyt_with_mentions_keeps_entities_without_relations_and_negative_pairs() -> None:
    docs, report = read("nyt11", "nyt_mentions.jsonl")
    assert ents(docs[0]) == [("Mira Oslund", "PERSON"), ("Acme", "ORGANIZATION"), ("Velden", "LOCATION")]
    assert [triple[1] for triple in docs[0]._.triples] == ["/business/person/company", "None"]
    assert (report.n_relations, report.n_negatives) == (1, 1)


def test_webnlg_keeps_overlapping_mentions_in_the_span_group() -> None:
    docs, report = read("webnlg", "webnlg.json")
    assert ents(docs[0]) == [("1 . FC Velden", "ENTITY"), ("Velden Arena", "ENTITY")]
    assert [span.text for span in docs[0].spans[GOLD_SPANS]] == ["1 . FC", "1 . FC Velden", "Velden Arena"]
    assert [triple[0] for triple in docs[0]._.triples] == ["1 . FC", "1 . FC Velden"]
    assert reasons(report)[OVERLAP] == 1
    assert reasons(report)["head and tail are the same place"] == 1
    assert report.count("relation") == 1


def test_gids() -> None:
    docs, report = read("gids", "gids.tsv")
    assert docs[0].text == "Mira Oslund was born near Velden, Norland in 1871. Mira Oslund left it soon."
    assert docs[0]._.triples == [("Mira Oslund", "/people/person/place_of_birth", "Velden, Norland")]
    assert [ent.kb_id_ for ent in docs[0].ents] == ["/m/01", "/m/02"]
    assert docs[1]._.triples == [("Jo Strand", "NA", "St")]
    assert reasons(report)["an entity found only inside a word"] == 1
    assert len(list(docs[0].sents)) == 1
    docs, _ = read("gids", "gids.tsv", names="underscores")
    assert docs[0]._.triples[0][0::2] == ("Mira_Oslund", "Velden,_Norland")


def test_redocred_by_sentence() -> None:
    docs, report = read("redocred", "redocred.json")
    assert [doc_id(doc) for doc in docs] == [f"Quokka#{i}" for i in range(4)]
    assert [ent.text for ent in docs[2].ents] == [
        "Western Australia",
        "Rottnest Island",
        "Perth",
        "Bald Island",
        "Albany",
    ]
    assert len(docs[2]._.relations) == 7
    label = "located in the administrative territorial entity"
    assert ("Rottnest Island", label, "Western Australia") in docs[2]._.triples
    assert all(len(list(doc.sents)) == 1 for doc in docs)
    assert (report.n_relations, report.count("relation"), report.count("mention")) == (7, 1, 2)
    read("redocred", "redocred.json", on_error="raise")  # what a level leaves out is no fault of the data


def test_redocred_by_document() -> None:
    (doc,), report = read("redocred", "redocred.json", level="document")
    assert [len(sent) for sent in doc.sents] == [
        len(sent) for sent in json.loads((FILES / "redocred.json").read_text())[0]["sents"]
    ]
    assert len(doc.ents) == 9
    perths = [ent for ent in doc.ents if ent.text == "Perth"]
    title = json.loads((FILES / "redocred.json").read_text())[0]["title"]
    assert [ent.kb_id_ for ent in perths] == [f"{title}#2"] * 2  # a number alone would be of many documents
    inside = next(r for r in doc._.relations if r.head.text == "Perth")
    assert inside.head.start == perths[0].start  # of the two, the one nearer to Western Australia
    across = next(r for r in doc._.relations if r.head.text == "Peoples Bay Nature Reserve")
    assert across.head.sent.start != across.tail.sent.start
    assert (report.n_relations, report.problems) == (8, [])


def test_rebel() -> None:
    docs, report = read("rebel", "rebel.jsonl")
    assert ents(docs[0]) == [("Acme", "ENTITY"), ("Velden", "ENTITY"), ("1871", "DATE")]
    assert docs[0]._.triples == [("Acme", "inception", "1871")]
    assert [ent.kb_id_ for ent in docs[0].ents] == ["Q1", "Q2", ""]
    assert not docs[0].has_annotation("SENT_START")
    assert reasons(report) == {
        "an argument that is not in the text": 1,
        "an entity that is not in the text": 1,
        "wrong offsets: the nearest occurrence is taken": 1,
    }


@pytest.mark.parametrize("name", ["tacred", "retacred"])
def test_tacred(name: str) -> None:
    docs, report = read(name, "tacred.json")
    assert docs[0]._.triples == [("Acme", "org:founded_by", "Mira Oslund")]
    assert ents(docs[0]) == [("Mira Oslund", "PERSON"), ("Acme", "ORGANIZATION")]
    assert docs[1]._.triples == [("Acme", "no_relation", "Velden")]
    assert [doc_id(doc) for doc in docs] == ["x1", "x2"]
    assert (report.n_relations, report.n_negatives) == (1, 1)


@pytest.mark.parametrize("name", ["biographical", "pg_fiction"])
def test_columns(name: str) -> None:
    docs, report = read(name, "columns.csv")
    assert docs[0]._.triples == [("Mira Oslund", "birthplace_name", "Velden")]
    assert str(report.problems[0]).startswith(f"{FILES / 'columns.csv'}:4: an entity is not in the text: 'Mira Oslund'")
    docs, _ = read(name, "columns.jsonl")
    assert docs[0]._.triples == [("Jo", "sibling", "Tom")]


def test_fewrel() -> None:
    docs, report = read("fewrel", "fewrel.json")
    assert [doc._.triples for doc in docs] == [
        [("Cape Girardeau Bridge", "crosses", "Mississippi River")],
        [("Wilton Bridge", "crosses", "River Wye")],
        [("Kaaviya Thalaivi", "original language of film or TV show", "Tamil language")],
    ]
    assert [token.text for token in docs[1]][:4] == ["Wilton", "Bridge", " ", "was"]
    assert [ent.kb_id_ for ent in docs[2].ents] == ["Q24905846", "Q5885"]
    assert (doc_id(docs[1]), report.problems) == ("P177 2", [])


def test_wiki80() -> None:
    docs, _ = read("wiki80", "wiki80.txt")
    assert docs[0]._.triples == [("Acme Hall", "headquarters location", "Velden")]
    assert ents(docs[0]) == [("Acme Hall", "FAC"), ("Velden", "UNK")]
    assert docs[0].text == "Acme Hall \n  is in Velden ."


EXAMPLES = {
    "semeval2010_task8": "semeval.TXT",
    "conll04": "conll04_tags.json",
    "nyt11": "nyt.json",
    "gids": "gids.tsv",
    "redocred": "redocred.json",
    "rebel": "rebel.jsonl",
    "tacred": "tacred.json",
    "biographical": "columns.csv",
    "pg_fiction": "columns.jsonl",
    "retacred": "tacred.json",
    "kbp37": "kbp37.txt",
    "scierc": "scierc.txt",
    "fewrel": "fewrel.json",
    "wiki80": "wiki80.txt",
    "webnlg": "webnlg.json",
}


def test_every_data_set_has_an_example_here() -> None:
    assert set(EXAMPLES) == set(DATASETS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_docbin_keeps_everything(name: str) -> None:
    docs, report = read(name, EXAMPLES[name])
    stored = DocBin(docs=docs, store_user_data=True).to_bytes()
    again = list(DocBin().from_bytes(stored).get_docs(spacy.blank("en").vocab))
    for doc, back in zip(docs, again, strict=True):
        assert back.text == doc.text
        assert back._.triples == doc._.triples
        assert [(e.start, e.end, e.label_, e.kb_id_) for e in back.ents] == [
            (e.start, e.end, e.label_, e.kb_id_) for e in doc.ents
        ]
        spans = [[(s.start, s.end, s.label_) for s in d.spans[GOLD_SPANS]] for d in (doc, back)]
        assert spans[0] == spans[1]
        assert [t.is_sent_start for t in back] == [t.is_sent_start for t in doc]
        assert doc_id(back) == doc_id(doc)
    assert sum(len(doc._.relations) for doc in again) == report.n_relations + report.n_negatives


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.filterwarnings("ignore::spacy_relx.errors.RelxWarning")
def test_registered_readers_keep_gold_entities(name: str) -> None:
    nlp = spacy.blank("en")
    config = {"@readers": f"spacy-relx.{name}.v1", "path": str(FILES / EXAMPLES[name])}
    examples = list(registry.resolve({"corpus": config})["corpus"](nlp))
    docs, _ = read(name, EXAMPLES[name])
    assert [example.reference._.triples for example in examples] == [doc._.triples for doc in docs]
    for example in examples:
        assert ents(example.predicted) == ents(example.reference)
        assert GOLD_SPANS in example.predicted.spans
        assert example.predicted._.relations == []
        assert doc_id(example.predicted) == doc_id(example.reference)
    bare = registry.resolve({"corpus": {**config, "gold_entities": False, "limit": 1}})["corpus"]
    (example,) = bare(nlp)
    assert not example.predicted.ents
    assert example.reference._.triples == docs[0]._.triples


def test_options_of_a_registered_reader() -> None:
    config = {"@readers": "spacy-relx.redocred.v1", "path": str(FILES / "redocred.json")}
    assert len(list(registry.resolve({"c": {**config, "level": "document"}})["c"](spacy.blank("en")))) == 1
    with pytest.raises(DataError, match=r"level is 'page'\. Expected 'sentence' or 'document'"):
        registry.resolve({"c": {**config, "level": "page"}})
    with pytest.raises(DataError, match="on_error is 'stop'"):
        registry.resolve({"c": {**config, "on_error": "stop"}})
    merged = {"@readers": "spacy-relx.scierc.v1", "path": str(FILES / "scierc.txt"), "merge": True}
    assert len(list(registry.resolve({"c": merged})["c"](spacy.blank("en")))) == 1
    several = {"@readers": "spacy-relx.tacred.v1", "path": [str(FILES / "tacred.json")] * 2}
    assert len(list(registry.resolve({"c": several})["c"](spacy.blank("en")))) == 4


def test_a_registered_reader_says_what_it_read(caplog: pytest.LogCaptureFixture) -> None:
    reader = registry.resolve({"c": {"@readers": "spacy-relx.conll04.v1", "path": str(FILES / "conll04_tags.json")}})
    with caplog.at_level("INFO", logger="spacy"):
        logging.getLogger("spacy").addHandler(caplog.handler)
        try:
            list(reader["c"](spacy.blank("en")))
        finally:
            logging.getLogger("spacy").removeHandler(caplog.handler)
    assert "conll04: 2 rows read: 2 Docs, 4 mentions, 3 relations" in caplog.text


def test_a_registered_reader_warns_of_what_it_skipped() -> None:
    reader = registry.resolve({"c": {"@readers": "spacy-relx.kbp37.v1", "path": str(FILES / "kbp37.txt")}})["c"]
    with pytest.warns(RelxWarning, match=r"3 rows read: 2 Docs.*skipped: 1 rows.*kbp37\.txt:9"):
        list(reader(spacy.blank("en")))
    assert len(list(reader(spacy.blank("en")))) == 2  # and no second warning
    config = {"@readers": "spacy-relx.kbp37.v1", "path": str(FILES / "kbp37.txt"), "on_error": "raise"}
    with pytest.raises(DataError, match=r"kbp37\.txt:9: a marked entity is empty"):
        list(registry.resolve({"c": config})["c"](spacy.blank("en")))


MALFORMED = {
    "semeval2010_task8": ('1\t"a <e1>b</e1> c"\nOther\n\n2\t"<e1>a</e1> <e2>b</e2>"\nNo-Such(e1,e2)\n\n3\t"x"\n', 3),
    "conll04": ('[{"tokens": ["a"]},\n {"tokens": ["a"], "entities": [], "relations": [{"head": 0}]}\n]', 2),
    "nyt11": ('[\n{"text": "a b", "triple_list": [["a", "b"]]},\n{"text": 3, "triple_list": []}, oops]', 3),
    "gids": ("a\tb\tc\n/m/1\t/m/2\tX\tY\tno label\tX Y\n/m/1\t/m/2\tX\tY\tNA\tonly X\n", 3),
    "redocred": ('[{"title": "t", "sents": [["a"]], "vertexSet": [[{"sent_id": 4, "pos": [0, 1], "type": "X"}]]}]', 1),
    "rebel": ('{"docid": 1}\nnot json\n{"docid": 1, "text": "a", "entities": [{}], "triples": []}\n', 3),
    "tacred": (
        '[{"token": ["a"], "relation": "no_relation", "subj_start": 0, "subj_end": 7, "subj_type": "X",\n'
        '"obj_start": 0, "obj_end": 0, "obj_type": "X"}, {"token": [], "relation": "per:shoe_size"}, 7]',
        3,
    ),
    "scierc": ('{"text": "[[ a ]] b", "label": "USED-FOR"}\n{"text": "[[ a ]] << b >>", "label": "USES"}\n[]\n', 3),
    "wiki80": ('{"token": "a b"}\n{}\n', 2),
    "fewrel": ('{"P177": [{"tokens": []}], "P0": [1]}', 2),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_rows_are_reported_and_skipped_or_fatal(name: str, tmp_path: Path) -> None:
    text, n_bad = MALFORMED[name]
    path = tmp_path / "bad.txt"
    path.write_text(text)
    docs, report = read(name, path)
    assert docs == []
    assert (report.n_rows, report.count("row")) == (n_bad, n_bad)
    assert all(problem.place.startswith(str(path)) and problem.reason for problem in report.problems)
    with pytest.raises(DataError, match=r"bad\.txt"):
        read(name, path, on_error="raise")


def test_the_line_of_a_malformed_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(MALFORMED["nyt11"][0])
    _, report = read("nyt11", tmp_path / "bad.json")
    assert [problem.place.partition("bad.json:")[2] for problem in report.problems] == [
        "2 (record 1)",
        "3 (record 2)",
        "3 (record 3)",
    ]


def test_files_that_are_something_else(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt' does not exist. Expected a file of KBP37"):
        read("kbp37", tmp_path / "none.txt")
    (tmp_path / "latin.tsv").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8 text"):
        read("gids", tmp_path / "latin.tsv")
    (tmp_path / "x.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="Expected a JSON array"):
        read("redocred", tmp_path / "x.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(DataError, match="Expected an object with a list"):
        read("fewrel", tmp_path / "list.json")
    (tmp_path / "x.csv").write_text("text,relation\n")
    with pytest.raises(DataError, match="has no column 'entity1'"):
        read("biographical", tmp_path / "x.csv")
    (tmp_path / "x.doc").write_text("")
    with pytest.raises(DataError, match="is of no known kind"):
        read("biographical", tmp_path / "x.doc")


def test_csv_rows_of_another_length(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("text,entity1,entity2,relation\na b,a\na b,a,b,r\na b,a,b,r,more\n ,a,b,r\n")
    docs, report = read("biographical", tmp_path / "x.csv")
    assert [doc._.triples for doc in docs] == [[("a", "r", "b")]]
    assert [problem.place.rpartition(":")[2] for problem in report.problems] == ["2", "4", "5"]


def test_unknown_names() -> None:
    with pytest.raises(DataError, match="no data set 'conll4'"):
        dataset("conll4")
    with pytest.raises(DataError, match=r"finished prompts, not texts. Read it with spacy_relx\.data\.read_prompts"):
        dataset("re_gentune")
    with pytest.raises(DataError, match=r"has no option 'level'\. Its options: none"):
        read("kbp37", "kbp37.txt", level="sentence")
    with pytest.raises(DataError, match="on_error is 'log'"):
        read("kbp37", "kbp37.txt", on_error="log")


def test_rows_of_one_text_merged() -> None:
    docs, report = read("scierc", "scierc.txt", merge=True)
    assert (len(docs), report.n_rows, report.n_relations) == (1, 3, 3)
    assert [triple[1] for triple in docs[0]._.triples] == ["USED-FOR", "USED-FOR", "FEATURE-OF"]
    assert len(docs[0].ents) == 4  # two of the six mentions are two others again
    docs, report = read("tacred", "tacred.json", merge=True)
    assert (len(docs), report.n_rows) == (2, 2)
    docs, report = read("kbp37", "kbp37.txt", merge=True)
    assert (len(docs), report.n_rows, report.count("row")) == (2, 3, 1)


def test_limit_and_several_files() -> None:
    nlp = spacy.blank("en")
    both = [FILES / "conll04_tags.json", FILES / "conll04_spans.json"]
    assert len(list(read_docs(dataset("conll04"), both, nlp))) == 4
    assert len(list(read_docs(dataset("conll04"), both, nlp, limit=3))) == 3


# A data set of one's own, and rows that no reader here gives.


def test_a_data_set_of_ones_own(tmp_path: Path) -> None:
    def read_lines(path: Path) -> Any:
        for n, line in enumerate(path.read_text().splitlines(), 1):
            head, label, tail = line.split("|")
            text = f"{head} - {tail}"
            mentions = (Mention(0, len(head), "A"), Mention(len(head) + 3, len(text), "B"))
            yield Row(str(n), f"{path}:{n}", text, mentions, ((0, 1, label),))

    own = DataSet("own", "Own", "mine", "here", read_lines)
    (tmp_path / "own.txt").write_text("Acme|owns|Velden Hall\n")
    (doc,) = read_docs(own, tmp_path / "own.txt", spacy.blank("en"))
    assert doc._.triples == [("Acme", "owns", "Velden Hall")]


def test_the_readmes_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = README.read_text(encoding="utf-8").split("```python\n")[1:]
    (code,) = (block.split("```")[0] for block in blocks if "DataSet(" in block)
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    monkeypatch.chdir(tmp_path)
    Path("my_data.txt").write_text("Acme owns Velden Hall.|Acme|owns|Velden Hall\nno bar\nAcme.|Acme|owns|Rome\n")
    names: dict[str, Any] = {}
    exec(compile(code, str(README), "exec"), names)
    (doc,) = DocBin().from_disk("my_data.spacy").get_docs(spacy.blank("en").vocab)
    assert doc._.triples == [("Acme", "owns", "Velden Hall")]
    printed = capsys.readouterr().out
    assert "3 rows read: 1 Docs, 2 mentions, 1 relations; skipped: 2 rows" in printed
    assert "my_data.txt:2: expected 4 values" in printed
    assert "my_data.txt:3: an entity is not in the text" in printed
    reader = make_reader(names["mine"])(path=Path("my_data.txt"))
    with pytest.warns(RelxWarning, match=r"such as my_data\.txt:2: expected 4 values") as caught:
        (example,) = reader(spacy.blank("en"))
    assert "convert mine" not in str(caught[0].message)
    assert example.reference._.triples == doc._.triples


def make(row: Row) -> tuple[Doc | None, list[Problem]]:
    return make_doc(row, spacy.blank("en"))


def test_tokens_are_split_at_the_borders_of_mentions() -> None:
    text = "preAcme's mailbox"
    doc, problems = make(Row("1", "f:1", text, (Mention(3, 7), Mention(10, 14)), ((0, 1, "r"),)))
    assert doc is not None
    assert doc.text == text
    assert doc._.triples == [("Acme", "r", "mail")]
    assert [problem.reason for problem in problems] == [SPLIT_TOKENS]


def test_white_space_is_taken_off_mentions() -> None:
    doc, _ = make(Row("1", "f:1", "a  b c ", (Mention(0, 3), Mention(2, 7)), ((0, 1, "r"),)))
    assert doc is not None
    assert doc.text == "a  b c "
    assert doc._.triples == [("a", "r", "b c")]


def test_bad_mentions_cost_their_relations_and_nothing_else() -> None:
    mentions = (Mention(0, 1), Mention(2, 3), Mention(1, 2), Mention(2, 9))
    doc, problems = make(Row("1", "f:1", "a b", mentions, ((0, 1, "r"), (0, 2, "r"), (3, 0, "r"), (1, 1, "r"))))
    assert doc is not None
    assert doc._.triples == [("a", "r", "b")]
    assert [problem.what for problem in problems] == ["mention", "mention", "relation", "relation", "relation"]


def test_empty_texts_and_empty_tokens() -> None:
    assert make(Row("1", "f:1", ""))[0] is None
    text, places = join_words(["", "a", "", "b", ""])
    assert (text, places[1], places[3]) == ("a b", (0, 1), (2, 3))
    doc, _ = make(Row("1", "f:1", text, words=("", "a", "", "b", "")))
    assert doc is not None
    assert [token.text for token in doc] == ["a", "b"]


def test_sentence_starts() -> None:
    doc, _ = make(Row("1", "f:1", "a b c d", words=("a", "b", "c", "d"), sents=(0, 4)))
    assert doc is not None
    assert [sent.text for sent in doc.sents] == ["a b", "c d"]
