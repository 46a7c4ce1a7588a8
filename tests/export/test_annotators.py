import io
import re
import sys
from pathlib import Path

import conllu
import pytest
from exported import HOSTILE, NLP, annotate, corpus, docs, hostile
from hypothesis import given, settings
from spacy.tokens import Doc, DocBin, Span

from spacy_relx.errors import DataError
from spacy_relx.export import Options, export, read_brat
from spacy_relx.export.conll import write_conll


def content(doc):
    """Everything that an annotator sees: text, entities, relations; by characters, as tokens may be others."""
    return (
        doc.text,
        [(e.start_char, e.end_char, e.label_, e.kb_id_) for e in doc.ents],
        [
            (r.head.start_char, r.head.end_char, r.label, r.tail.start_char, r.tail.end_char, r.score, r.inverse_label)
            for r in doc._.relations
        ],
    )


# brat


def test_brat_files_are_as_brat_has_them(tmp_path):
    export(corpus(), tmp_path / "b", "brat")
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [
        "2.ann",
        "2.txt",
        "annotation.conf",
        "documents.tsv",
        "first.ann",
        "first.txt",
        "visual.conf",
    ]
    assert (tmp_path / "b" / "first.ann").read_text("utf8") == (
        "T1\tPERSON 11 22\tMarie Curie\n"
        "T2\tGPE 35 41\tWarsaw\n"
        "#2\tAnnotatorNotes T2\tkb_id=Q270\n"
        "R1\tborn_in Arg1:T1 Arg2:T2\n"
        "#4\tAnnotatorNotes R1\tscore=0.5\n"
    )
    configuration = (tmp_path / "b" / "annotation.conf").read_text("utf8")
    assert "[entities]\nPERSON\nGPE\n\n[relations]\nborn_in\tArg1:PERSON, Arg2:GPE\nstudied_in\t" in configuration
    assert "studied_in | studied in\n" in (tmp_path / "b" / "visual.conf").read_text("utf8")


def test_brat_comes_back(tmp_path):
    given_docs = corpus()
    export(given_docs, tmp_path / "b", "brat")
    found = list(read_brat(tmp_path / "b"))
    assert [content(doc) for doc in found] == [content(doc) for doc in given_docs]
    assert [doc.user_data["id"] for doc in found] == ["first", "2"]


@given(doc=docs())
@settings(max_examples=60, deadline=None)
def test_any_text_comes_back_from_brat(tmp_path_factory, doc):
    folder = tmp_path_factory.mktemp("brat") / "b"
    # A mention that ends in white space may come back with more of it: tokens cannot begin there.
    wanted = [r for r in doc._.relations if all(m.text.strip() for m in (r.head, r.tail))]
    doc._.relations = [(r.head, f"{n} {HOSTILE.strip()[:30]}", r.tail, r.score) for n, r in enumerate(wanted)]
    export([doc, hostile()], folder, "brat")
    (first, second) = read_brat(folder)
    for line in [line for path in folder.glob("*.ann") for line in path.read_text("utf8").split("\n")]:
        assert re.fullmatch(
            r"|T\d+\t[\w-]+ [\d ;]+\t[^\n]*|R\d+\t[\w-]+ Arg1:T\d+ Arg2:T\d+|#\d+\t\w+ [TR]\d+\t.*", line
        )
    assert first.text == doc.text
    assert [(r.head.text.strip(), r.label, r.score) for r in first._.relations] == [
        (r.head.text.strip(), r.label, r.score) for r in doc._.relations
    ]
    assert second.text == hostile().text


def test_names_of_files_are_safe_and_their_own(tmp_path):
    names = ["../../etc/passwd", "a/b", "a_b", "A_B", "..", "", "x" * 300, "nul\x00"]
    given_docs = [annotate("Ann.", name=name) for name in names]
    export(given_docs, tmp_path / "b", "brat")
    stems = [path.stem.casefold() for path in (tmp_path / "b").glob("*.txt")]
    assert len(set(stems)) == len(names)
    assert all(len(stem) < 120 and "/" not in stem for stem in stems)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_mention_over_a_line_end_is_in_fragments(tmp_path):
    doc = annotate("Ann saw New\r\nYork.", ("Ann", "PERSON", "saw", "New\r\nYork", "GPE", 0.5))
    export(doc, tmp_path / "b", "brat")
    assert "\tGPE 8 11;13 17\tNew York\n" in (tmp_path / "b" / "1.ann").read_bytes().decode("utf8")
    (found,) = read_brat(tmp_path / "b")
    assert found._.relations[0].tail.text == "New\r\nYork"


def test_what_annotators_add_is_read(tmp_path):
    (tmp_path / "x.txt").write_text("Ann works for Acme.")
    (tmp_path / "x.ann").write_text(
        "T1\tPERSON 0 3\tAnn\nT2\tORG 14 18\tAcme\nR1\tworks_for Arg1:T1 Arg2:T2\t\nA1\tNegation R1\n*\tEquiv T1 T2\n"
        "E1\tPERSON:T1\n#1\tAnnotatorNotes R1\tcheck this\n"
    )
    (doc,) = read_brat(tmp_path)
    assert doc._.triples == [("Ann", "works_for", "Acme")]
    assert doc._.relations[0].score == 1.0
    assert doc.user_data["id"] == "x"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("T1\tPERSON 0\tAnn", "x.ann:1 has"),
        ("R1\tmet Arg1:T1 Arg2:T9", "x.ann:1 has.*T1"),
        ("T1\tPERSON 90 93\tAnn", "does not fit its .txt file"),
        ("T1\tPERSON 0 3\tAnn\nR1\tmet Arg1:T1 Arg2:T1", "does not fit|Expected two different"),
    ],
)
def test_broken_lines_are_named(tmp_path, line, message):
    (tmp_path / "x.txt").write_text("Ann works.")
    (tmp_path / "x.ann").write_text(line)
    with pytest.raises(DataError, match=message):
        list(read_brat(tmp_path))


def test_a_folder_without_files_and_a_missing_text(tmp_path):
    with pytest.raises(DataError, match=r"has no \.ann files"):
        list(read_brat(tmp_path))
    (tmp_path / "x.ann").write_text("")
    with pytest.raises(DataError, match="cannot be read"):
        list(read_brat(tmp_path))


# CoNLL


def conll(given_docs):
    file = io.StringIO()
    write_conll(given_docs, file)
    return file.getvalue()


def test_conllu_reads_the_columns():
    sentences = conllu.parse(conll(corpus()))
    assert [sentence.metadata["text"] for sentence in sentences] == [
        "It rained.",
        "Marie Curie was born in Warsaw.",
        corpus()[1].text,  # two sentences that a relation joins
    ]
    assert sentences[0].metadata["newdoc id"] == "first"
    tokens = {token["form"]: token for token in sentences[1]}
    assert [(token["relx:ner"], token["relx:rel"]) for token in sentences[1]][:2] == [
        ("B-PERSON", "_"),
        ("I-PERSON", "_"),
    ]
    assert tokens["Warsaw"]["relx:rel"] == "1:born_in"
    assert tokens["Warsaw"]["misc"] == {"SpaceAfter": "No"}
    assert {token["form"]: token["relx:rel"] for token in sentences[2]}["Paris"] == "1:studied%20in"


def text_of(sentences):
    """Put a text together from forms and white space, as Universal Dependencies says."""
    escapes = {r"\s": " ", r"\t": "\t", r"\n": "\n", r"\r": "\r", "\\\\": "\\", r"\p": "|"}
    made = ""
    for line in sentences.split("\n"):
        cells = line.split("\t")
        if len(cells) == 5:
            misc = dict(part.split("=", 1) for part in cells[4].split("|") if "=" in part)
            spaces = {k: re.sub(r"\\.", lambda m: escapes[m[0]], v) for k, v in misc.items()}
            after = "" if misc.get("SpaceAfter") == "No" else spaces.get("SpacesAfter", " ")
            made += spaces.get("SpacesBefore", "") + cells[1] + after
    return made


@given(doc=docs())
@settings(max_examples=60, deadline=None)
def test_columns_hold_whatever_the_text_is(doc):
    found = conll([doc, hostile()])
    rows = [line.split("\t") for line in found.split("\n") if line and not line.startswith("#")]
    assert all(len(row) == 5 and all(cell for cell in row) for row in rows if not row[0].startswith("#"))
    forms = [token.text for token in doc]
    if all(form == " ".join(form.split()) and form.isprintable() and "#" not in form for form in forms):
        assert text_of(conll([doc])) == doc.text


def test_white_space_is_kept():
    doc = NLP(" \n Ann  met\n\nBob\\|. ")
    assert text_of(conll([doc])) == doc.text


def test_relations_that_columns_cannot_hold_are_counted():
    doc = NLP("The University of Paris is in Paris.")
    doc._.relations = [(Span(doc, 1, 4, "ORG"), "in", Span(doc, 6, 7, "GPE")), (Span(doc, 3, 4, "GPE"), "in", (6, 7))]
    (sentence,) = conllu.parse(conll([doc]))
    assert sentence.metadata["left_out"] == "1"
    assert [token["relx:rel"] for token in sentence if token["relx:rel"] != "_"] == ["2:in"]


def test_docs_of_nothing_have_no_sentences():
    assert conll([NLP(""), NLP("  \n"), Doc(NLP.vocab)]).count("\n") == 1


# spaCy's own, and all of them


def test_a_docbin_can_be_trained_on(tmp_path):
    export(corpus(), tmp_path / "x.spacy")
    found = list(DocBin().from_disk(tmp_path / "x.spacy").get_docs(NLP.vocab))
    assert [content(doc) for doc in found] == [content(doc) for doc in corpus()]


@pytest.mark.parametrize("output", ["x.parquet", "x.spacy"])
def test_binary_formats_want_a_file(output):
    with pytest.raises(DataError, match="not standard output"):
        export(corpus(), "-", "parquet" if "parquet" in output else "docbin")


def test_every_format_takes_docs_without_relations(tmp_path):
    from spacy_relx.export import FORMATS

    for name, format in FORMATS.items():
        for number, given_docs in enumerate(([], [NLP("")], [NLP("Nobody is here.")])):
            path = tmp_path / f"{number}{format.suffixes[0] if format.suffixes else name}"
            assert export(given_docs, path, name).n_relations == 0
            assert path.exists()


def test_relations_under_another_name(tmp_path):
    from spacy_relx.relation import register

    register("mine")
    (doc, _) = corpus()
    doc._.mine = [(doc.ents[1], "birthplace_of", doc.ents[0])]
    export(doc, tmp_path / "x.csv", options=Options(attr="mine"))
    assert "birthplace_of" in (tmp_path / "x.csv").read_text("utf8")
    assert "born_in" not in (tmp_path / "x.csv").read_text("utf8")


def test_importing_is_cheap():
    """Naming the package brings in none of the libraries that formats need."""
    import subprocess

    code = "import sys, spacy_relx.export\nassert not {'networkx', 'rdflib', 'pyarrow', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
