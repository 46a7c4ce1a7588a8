"""The graph page as text: what is in it. What it does in a browser is in test_graph_browser.py."""

import base64
import hashlib
import json
import re
from importlib.resources import files

import pytest
import spacy
from spacy.tokens import Doc, Span

from spacy_relx import view
from spacy_relx.errors import DataError
from spacy_relx.merging import merge_relations


@pytest.fixture(scope="module")
def nlp():
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    return nlp


def two(nlp, text, head, tail, *relations):
    """Make a Doc of two mentions, given as (start token, end token, type), and (label, score) between them."""
    doc = nlp(text)
    doc.ents = [Span(doc, *head), Span(doc, *tail)]
    doc._.relations = [(doc.ents[0], label, doc.ents[1], score) for label, score in relations]
    return doc


@pytest.fixture
def docs(nlp):
    return [
        two(nlp, "Rain fell. Ann leads Acme.", (3, 4, "PERSON"), (5, 6, "ORG"), ("leads", 0.9), ("owns", 0.4)),
        two(nlp, "ANN leads Acme.", (0, 1, "PERSON"), (2, 3, "ORG"), ("leads", 0.7)),
    ]


def data_of(page):
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def test_entities_relations_and_evidence(docs):
    data = data_of(view.graph(docs))
    ann, acme = data["entities"]
    assert ann == {"name": "Ann", "names": ["ANN"], "type": "PERSON", "kbId": "", "n": 2, "color": "#aa9cfc"}
    assert acme["color"] == "#7aecec"  # displaCy's colour of ORG
    leads, owns = data["relations"]
    assert {key: leads[key] for key in ("head", "tail", "label", "score", "n", "nDocs")} == {
        "head": 0, "tail": 1, "label": "leads", "score": 0.9, "n": 2, "nDocs": 2,
    }  # fmt: skip
    assert [e["segments"] for e in leads["evidence"]] == [
        [["Ann", "head"], [" leads ", ""], ["Acme", "tail"], [".", ""]],
        [["ANN", "head"], [" leads ", ""], ["Acme", "tail"], [".", ""]],
    ]
    assert owns["n"] == 1


def test_the_page_asks_for_nothing_from_the_network(docs):
    page = view.graph(docs)
    own = page
    for library in (files("spacy_relx.view") / "vendor").iterdir():
        if library.name.endswith(".js"):
            own = own.replace(library.read_text("utf8"), "")
    assert len(own) < 60_000  # the libraries were found and taken out
    assert not re.findall(r"https?://|<link|<img|@import|url\(|\bsrc=|fetch\(|XMLHttpRequest", own)
    assert "default-src 'none'" in own


def test_the_security_policy_names_the_scripts_of_the_page(docs):
    page = view.graph(docs)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page).group(1)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == policy.count("sha256-") == 6
    for script in scripts:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
        assert "\r" not in script  # a browser would make it \n before it computes the hash


EVIL = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> & \u2028 \U0001f9ea"


def test_text_of_documents_cannot_end_the_script_element(nlp):
    doc = Doc(nlp.vocab, words=[EVIL, "owns", EVIL[::-1]])
    doc._.relations = [((0, 1), EVIL, (2, 3), 0.5)]
    page = view.graph(doc, title=EVIL)
    assert page.count("<script") == page.count("</script") == 7
    assert "<img" not in page
    assert page.count("<!--") == page.count("-->") == 1  # the page's own
    data = data_of(page)
    assert data["relations"][0]["label"] == EVIL
    assert data["relations"][0]["evidence"][0]["segments"][0] == [EVIL, "head"]


@pytest.mark.parametrize("save", [view.save, view.save_graph])
def test_half_a_character_in_an_id_costs_no_page(docs, save, tmp_path):
    docs[0].user_data |= {"id": "half \ud83d", "title": "half \ud83d"}
    assert "half ?" in save(docs, tmp_path / "new" / "page.html").read_text("utf8")


def test_no_more_relations_than_asked_for_and_the_page_knows_how_many_there_are(docs):
    data = data_of(view.graph(docs, max_relations=1))
    assert [r["label"] for r in data["relations"]] == ["leads"]
    assert data["nRelations"] == 2
    with pytest.raises(DataError, match="at least 1"):
        view.graph(docs, max_relations=0)


def test_filters(docs):
    assert [(r["label"], r["n"]) for r in data_of(view.graph(docs, min_score=0.8))["relations"]] == [("leads", 1)]
    assert [r["label"] for r in data_of(view.graph(docs, labels=["owns"]))["relations"]] == ["owns"]
    merged = merge_relations(docs)
    assert [r["label"] for r in data_of(view.graph(merged, min_score=0.5))["relations"]] == ["leads"]
    assert [r["label"] for r in data_of(view.graph(merged, labels=["owns"]))["relations"]] == ["owns"]


def test_entities_without_relations_on_the_page_are_not_on_it(nlp, docs):
    other = two(nlp, "Bob met Cid.", (0, 1, "PERSON"), (2, 3, "PERSON"), ("met", 0.1))
    assert [e["name"] for e in data_of(view.graph([*docs, other], min_score=0.5))["entities"]] == ["Ann", "Acme"]


def test_own_colours(docs):
    page = view.graph(docs, options={"colors": {"ORG": "#123456"}})
    assert [e["color"] for e in data_of(page)["entities"]] == ["#aa9cfc", "#123456"]


def test_nothing_to_draw(nlp):
    for docs in ([], nlp(""), nlp("Nobody is here.")):
        assert data_of(view.graph(docs))["relations"] == []


def test_long_sentences_are_cut_around_the_mentions(nlp):
    doc = nlp("Ann " + "and so on " * 500 + "owns Acme")
    doc._.relations = [((0, 1), "owns", (len(doc) - 1, len(doc)), 0.5)]
    segments = data_of(view.graph(doc))["relations"][0]["evidence"][0]["segments"]
    assert sum(len(text) for text, _ in segments) < 500
    assert [" … ", ""] in segments


def test_a_notebook_shows_the_page_in_a_frame(docs):
    page = view.graph(docs)
    shown = page._repr_html_()
    assert shown.startswith("<iframe")
    assert 'sandbox="allow-scripts"' in shown
    assert shown.count("<") == 2  # the page is the value of an attribute


def test_not_a_doc():
    with pytest.raises(DataError, match="Expected a spaCy Doc"):
        view.graph(["text"])


def test_the_page_hands_on_the_licences_of_the_libraries_in_it(docs):
    page = view.graph(docs)
    for name in ("cytoscape", "d3"):
        licence = (files("spacy_relx.view") / "vendor" / f"{name}.LICENSE").read_text("utf8")
        words = " ".join(page.replace("\n *", "\n").split())
        assert " ".join(licence.split()) in words


def test_the_libraries_are_those_that_the_record_names():
    folder = files("spacy_relx.view") / "vendor"
    recorded = dict(re.findall(r"^\| `([^`]+)` .*`([0-9a-f]{64})` \|$", (folder / "README.md").read_text("utf8"), re.M))
    found = {file.name: file.read_bytes() for file in folder.iterdir() if file.name.endswith(".js")}
    assert {name: hashlib.sha256(data).hexdigest() for name, data in found.items()} == recorded
    assert all(b"</script" not in data for data in found.values())
    licences = [(folder / f"{name}.LICENSE").read_text("utf8") for name in ("cytoscape", "d3")]
    assert all("Permission" in licence and "Copyright" in licence for licence in licences)
