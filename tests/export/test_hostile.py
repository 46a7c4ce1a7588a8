"""What breaks files, names of files and other people's programs: one clear error, or a file that holds it."""

import csv
import io
import json
import re

import networkx as nx
import pytest
import rdflib
from exported import NLP, annotate
from spacy.tokens import Doc, DocBin, Span

from spacy_relx._annotated import read_annotated
from spacy_relx.errors import DataError
from spacy_relx.export import FORMATS, Options, export, read_brat

CONTROLS = ["a\x00", "a\x01", "a\ufffd", "a\x7f"]


def path_for(folder, name, format):
    return folder / f"{name}{format.suffixes[0] if format.suffixes else '-' + format.name}"


def pairs(names, label="met"):
    """Relations of everybody with Ann."""
    doc = Doc(NLP.vocab, words=["Ann", *names])
    doc._.relations = [((0, 1), label, (i, i + 1)) for i in range(1, len(doc))]
    return doc


def test_names_that_differ_in_what_a_format_cannot_hold_stay_apart(tmp_path):
    """Two nodes of one id would end a bulk import, or be one node."""
    doc = pairs(CONTROLS)
    for name in ("graphml", "turtle", "cypher", "neo4j"):
        export(doc, path_for(tmp_path, "x", FORMATS[name]), name)
    with (tmp_path / "x-neo4j" / "nodes.csv").open(encoding="utf8", newline="") as file:
        keys = [row["key:ID"] for row in csv.DictReader(file)]
    assert len(set(keys)) == len(keys) == 5
    with (tmp_path / "x-neo4j" / "relationships.csv").open(encoding="utf8", newline="") as file:
        assert {row[":END_ID"] for row in csv.DictReader(file)} < set(keys)
    found = nx.read_graphml(tmp_path / "x.graphml")
    assert (len(found), found.number_of_edges()) == (5, 4)
    merged = re.findall(r"key: '(.*?)', values", (tmp_path / "x.cypher").read_text("utf8"))
    assert len(set(merged)) == 5
    turtle = rdflib.Graph().parse(tmp_path / "x.ttl")
    assert len(set(turtle.objects(None, rdflib.RDF.object))) == 4


@pytest.mark.parametrize("label", [" ", "\u2028", "\x00", "../..", "`", "\\"])
@pytest.mark.parametrize("name", FORMATS)
def test_labels_and_types_of_any_characters(tmp_path, name, label):
    doc = NLP("Ann met Bob.")
    doc._.relations = [(Span(doc, 0, 1, label), label, Span(doc, 2, 3, label), 0.5)]
    path = path_for(tmp_path, "x", FORMATS[name])
    export(doc, path, name)
    if name == "cypher":
        assert "``" not in path.read_text("utf8")  # there is no type without a name
    elif name == "neo4j":
        nodes, edges = (
            list(csv.DictReader(io.StringIO((path / f"{part}.csv").read_text("utf8"))))
            for part in ("nodes", "relationships")
        )
        assert edges[0][":TYPE"]
        assert not nodes[0][":LABEL"].endswith(";")
    elif name == "brat":
        (found,) = read_brat(path)
        assert [(r.head.text, r.tail.text) for r in found._.relations] == [("Ann", "Bob")]
    elif name == "conll":
        assert re.search(r"\t1:[^\s|]+\t", path.read_text("utf8"))


@pytest.mark.parametrize("char", "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
def test_every_beginning_of_a_formula_is_guarded(tmp_path, char):
    export(pairs([f"{char}cmd()"]), tmp_path / "x.csv", options=Options(guard_formulas=True))
    (row,) = csv.DictReader(io.StringIO((tmp_path / "x.csv").read_bytes().decode("utf8"), newline=""))
    assert row["tail"] == f"'{char}cmd()"


def test_ids_make_names_that_every_system_takes(tmp_path):
    names = ["東" * 200, "🧪" * 200, "-rf", "NUL", "con.txt", "COM1", "a\ud800b", "~", "a" * 99 + "é"]
    export([annotate("Ann.", name=name) for name in names], tmp_path / "b", "brat")
    stems = [path.stem for path in (tmp_path / "b").glob("*.txt")]
    assert len(stems) == len(names)
    assert all(len(f"{stem}.txt".encode()) < 120 for stem in stems)
    assert not [stem for stem in stems if re.match(r"-|(con|nul|com1)(\.|$)", stem, re.IGNORECASE)]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("x.ann", b"T1\tP 0 99999999999999999999\tAnn", "no text at characters 0..99999999999999999999"),
        ("x.ann", b"T1\tP 4294967296 4294967299\tAnn", "does not fit its .txt file"),
        ("x.ann", b"T1\tP 8 2\tAnn", r"no text at characters 8\.\.2"),
        ("x.ann", b"T1\tP 0 " + b"9" * 5000 + b"\tAnn", "x.ann:1 has"),
        ("x.ann", b"\xff", "x.ann' cannot be read"),
        ("x.txt", b"\xff", "x.txt' cannot be read"),
        ("visual.conf", b"\xff", "visual.conf' cannot be read"),
        ("documents.tsv", b"\xff", "documents.tsv' cannot be read"),
    ],
)
def test_brat_files_of_strangers(tmp_path, file, content, message):
    (tmp_path / "x.txt").write_text("Ann works.")
    (tmp_path / "x.ann").write_text("T1\tP 0 3\tAnn")
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        list(read_brat(tmp_path))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("value", ["\ud800", 10**30])
def test_an_id_that_a_docbin_cannot_hold_is_named(tmp_path, value):
    row = {"id": value, "text": "Ann.", "ents": [], "relations": []}
    (tmp_path / "in.jsonl").write_text(json.dumps({**row, "id": 1}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"Document 2 .* cannot be kept in a DocBin"):
        export(read_annotated(tmp_path / "in.jsonl"), tmp_path / "x.spacy")
    assert not (tmp_path / "x.spacy").exists()
    for name in set(FORMATS) - {"docbin"}:  # where text or JSON takes them
        export(read_annotated(tmp_path / "in.jsonl"), path_for(tmp_path, "x", FORMATS[name]), name)


A, B = (0, 1, 0, 3, "P"), (2, 3, 8, 11, "P")


@pytest.mark.parametrize(
    "stored",
    [
        *(None, "abc", (A, B, "met"), ((0, 1), B, "met", 0.5, ""), ((0, 1, 0, 3, None), B, "met", 0.5, "")),
        *((A, B, "met", float("nan"), ""), (A, B, "met", 7.0, ""), (A, B, "met", "x", ""), (A, B, 5, 0.5, "")),
        *(
            (A, B, "met", 0.5, 3),
            ((-2, -1, -5, -2, "P"), B, "met", 0.5, ""),
            ((0.0, 1.0, 0.0, 3.0, "P"), B, "m", 1, ""),
        ),
        ((0, 10**12, 0, 10**12, "P"), B, "met", 0.5, ""),
    ],
    ids=repr,
)
def test_a_docbin_with_something_else_in_the_place_of_relations(tmp_path, stored):
    doc = NLP("Ann met Bob.")
    doc.user_data["._.", "relations", None, None] = (stored,)
    DocBin(docs=[doc], store_user_data=True).to_disk(tmp_path / "x.spacy")
    with pytest.raises(DataError, match=r"is damaged|points at characters"):
        export(read_annotated(tmp_path / "x.spacy"), tmp_path / "x.jsonl")


def test_folders_of_others_are_left_alone(tmp_path, monkeypatch):
    (tmp_path / "out.part").mkdir()
    (tmp_path / "out.part" / "mine.txt").write_text("x")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    export(annotate("Ann."), ".", "brat")
    assert (tmp_path / "out" / "1.txt").exists()
    assert (tmp_path / "out.part" / "mine.txt").read_text() == "x"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.part"]


def test_what_nobody_sees_makes_no_other_entity(tmp_path):
    docs = [pairs([name]) for name in ("Bob", "B\u00adob", "Bob\u200b", "\u202eBob\u202c")]
    assert export(docs, tmp_path / "x.graphml").n_entities == 2
