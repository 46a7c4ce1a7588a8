import re

import pytest
import spacy
from hypothesis import example, given
from hypothesis import strategies as st
from spacy.tokens import Span

from spacy_relx.errors import DataError
from spacy_relx.merging import context, entity_key, merge_relations, normalise


@pytest.fixture(scope="module")
def nlp():
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    return nlp


def annotated(nlp, text, *relations, ids=None):
    """Make a Doc of relations given as (head text, head type, label, tail text, tail type, score)."""
    doc = nlp(text)

    def mention(name, label):
        found = re.search(rf"\b{re.escape(name)}", text)
        span = doc.char_span(found.start(), found.start() + len(name))
        return Span(doc, span.start, span.end, label, kb_id=(ids or {}).get(name, ""))

    mentions = {(name, label): mention(name, label) for r in relations for name, label in (r[:2], r[3:5])}
    doc.ents = list(mentions.values())
    doc._.relations = [(mentions[r[:2]], r[2], mentions[r[3:5]], r[5]) for r in relations]
    return doc


def test_mentions_and_facts_of_several_docs_are_merged(nlp):
    docs = [
        annotated(nlp, "Ann leads Acme.", ("Ann", "PERSON", "leads", "Acme", "ORG", 0.6)),
        annotated(nlp, "Rain fell. ANN leads the Acme.", ("ANN", "PERSON", "leads", "the Acme", "ORG", 0.9)),
        annotated(nlp, "Ann leads Bolt.", ("Ann", "PERSON", "leads", "Bolt", "ORG", 0.95)),
    ]
    docs[1].user_data["id"] = "second"
    graph = merge_relations(iter(docs))
    assert [(e.names, e.label, e.n_mentions) for e in graph.entities.values()] == [
        (("Ann", "ANN"), "PERSON", 3),
        (("Acme", "the Acme"), "ORG", 2),
        (("Bolt",), "ORG", 1),
    ]
    first, second = graph.relations
    # The better supported first, not the higher score.
    assert (first.score, first.mean_score, first.n, first.n_docs) == (0.9, 0.75, 2, 2)
    assert (second.score, second.n, second.n_docs) == (0.95, 1, 1)
    best, other = first.evidence
    assert (best.doc, best.text, best.score) == ("second", "ANN leads the Acme.", 0.9)
    assert (best.text[slice(*best.head)], best.text[slice(*best.tail)]) == ("ANN", "the Acme")
    assert docs[1].text[best.start_char :].startswith(best.text)
    assert best.start_char > 0
    assert other.doc == "1"
    assert (graph.n_docs, graph.n_loops) == (3, 0)


def test_a_person_and_a_place_of_one_name_are_two(nlp):
    doc = annotated(
        nlp,
        "Ann met Jackson in Jackson.",
        ("Ann", "PERSON", "met", "Jackson", "PERSON", 0.5),
    )
    place = Span(doc, 4, 5, "GPE")
    doc._.relations = [*doc._.relations, (doc.ents[1], "in", place, 0.5)]
    assert len(merge_relations(doc).entities) == 3


def test_knowledge_base_ids_win_over_names_and_types(nlp):
    ids = {"IBM": "Q37156", "Big Blue": "Q37156", "Ann": "NIL"}
    docs = [
        annotated(nlp, "Ann joined IBM.", ("Ann", "PERSON", "joined", "IBM", "ORG", 0.5), ids=ids),
        annotated(nlp, "Ann joined Big Blue.", ("Ann", "PERSON", "joined", "Big Blue", "PRODUCT", 0.5), ids=ids),
    ]
    graph = merge_relations(docs)
    assert [(e.name, e.kb_id) for e in graph.entities.values()] == [("Ann", ""), ("IBM", "Q37156")]
    assert graph.relations[0].n == 2


def test_a_relation_of_an_entity_with_itself_is_counted_and_left_out(nlp):
    doc = annotated(nlp, "Acme and ACME met.", ("Acme", "ORG", "met", "ACME", "ORG", 0.5))
    graph = merge_relations(doc)
    assert (graph.entities, graph.relations, graph.n_loops) == ({}, (), 1)


def test_symmetric_labels_have_one_direction(nlp):
    docs = [
        annotated(nlp, "Ann wed Bob.", ("Ann", "P", "spouse", "Bob", "P", 0.5)),
        annotated(nlp, "Ann wed Bob.", ("Bob", "P", "spouse", "Ann", "P", 0.9)),
    ]
    assert len(merge_relations(docs).relations) == 2
    (merged,) = merge_relations(docs, symmetric=["spouse"]).relations
    assert (merged.head, merged.n) == (entity_key(docs[0].ents[0]), 2)
    for evidence in merged.evidence:
        assert evidence.text[slice(*evidence.head)] == "Ann"


def test_the_best_places_are_kept(nlp):
    scores = [0.3, 0.9, 0.5, 0.9, 0.1, 0.7]
    docs = [annotated(nlp, "Ann met Bob.", ("Ann", "P", "met", "Bob", "P", score)) for score in scores]
    (merged,) = merge_relations(docs, max_evidence=3).relations
    assert [(e.doc, e.score) for e in merged.evidence] == [("2", 0.9), ("4", 0.9), ("6", 0.7)]
    assert (merged.n, merged.n_docs, merged.score) == (6, 6, 0.9)


def test_context_reaches_from_the_first_mention_to_the_last(nlp):
    doc = nlp("One. Two. Three. Four. Five.")
    doc._.relations = [((6, 7), "r", (2, 3), 0.5)]
    assert context(doc._.relations[0]).text == "Two. Three. Four."


def test_context_without_sentences_is_what_is_near():
    doc = spacy.blank("en")("One. Two.")
    doc._.relations = [((0, 1), "r", (2, 3), 0.5)]
    assert context(doc._.relations[0]).text == doc.text
    doc = spacy.blank("en")("a " * 1000)
    doc._.relations = [((500, 501), "r", (510, 511), 0.5)]
    assert len(context(doc._.relations[0])) == 40 + 11 + 40


def test_scores_and_labels_can_be_left_out(nlp):
    doc = annotated(nlp, "Ann met Bob.", ("Ann", "P", "met", "Bob", "P", 0.9), ("Bob", "P", "met", "Ann", "P", 0.2))
    assert len(merge_relations(doc).relations) == 2
    assert len(merge_relations(doc, min_score=0.2).relations) == 2
    assert [r.score for r in merge_relations(doc, min_score=0.5).relations] == [0.9]
    assert merge_relations(doc, labels=["other"]).entities == {}


def test_own_key(nlp):
    docs = [annotated(nlp, "Ann met Bob.", ("Ann", "P", "met", "Bob", "Q", 0.5))]
    graph = merge_relations(docs, key=lambda mention: mention.label_)
    assert list(graph.entities) == ["P", "Q"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("The  New York\nTimes\u2019s", "new york times"),
        ("\u201cAcme\u201d", "acme"),
        ("the \u201cAcme\u201d's", "acme"),
        ("The", "the"),
        ("C++", "c++"),
        ("(C)", "c"),
        ("...", "..."),
        ("\uff21cme", "acme"),  # full width
        ("\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2", "\u03c3\u03af\u03c3\u03c5\u03c6\u03bf\u03c3"),  # final sigma
        ("U.S.", "u.s"),
        ("Theodore", "theodore"),
    ],
)
def test_normalised_names(name, expected):
    assert normalise(name) == expected


@example("\xad")
@given(st.text(max_size=20))
def test_a_name_that_is_something_stays_something(name):
    assert bool(normalise(name)) == bool(name.split())


def test_not_a_doc():
    with pytest.raises(DataError, match="Expected a spaCy Doc"):
        merge_relations(["text"])


def test_no_evidence_at_all(nlp):
    with pytest.raises(DataError, match="at least 1"):
        merge_relations([], max_evidence=0)
