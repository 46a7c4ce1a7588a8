"""Relations on a Doc: reading, assigning, offsets, and what carries them along."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin, Span
from spacy.util import filter_spans
from spacy.vocab import Vocab

from spacy_relx import Relation, RelationAnswer, as_doc, merge_docs
from spacy_relx.errors import DataError
from spacy_relx.relation import register

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS = ["Steve", "Jobs", "co-founded", "Apple", "in", "New", "York", "."]
KEY = ("._.", "relations", None, None)


def make_doc(vocab: Vocab | None = None, *, trailing_space: bool = False) -> Doc:
    spaces = [True] * 6 + [False, trailing_space]
    doc = Doc(vocab or Vocab(), words=WORDS, spaces=spaces, sent_starts=[True] + [False] * 7)
    doc.set_ents([Span(doc, 0, 2, "PERSON"), Span(doc, 3, 4, "ORG"), Span(doc, 5, 7, "GPE", kb_id="Q60")])
    return doc


@pytest.fixture
def doc() -> Doc:
    doc = make_doc()
    person, org, gpe = doc.ents
    doc._.relations = [Relation(org, person, "founded_by", 0.9, "founder_of"), (org, "located_in", gpe, 0.5)]
    return doc


def plain(doc: Doc) -> list[dict[str, Any]]:
    return [relation.to_dict() for relation in doc._.relations]


def test_an_empty_doc_has_none() -> None:
    doc = Doc(Vocab())
    assert doc._.relations == doc._.triples == doc._.relation_answers == []
    doc._.relations = []
    assert doc._.relations == []


def test_views(doc: Doc) -> None:
    first, second = doc._.relations
    assert isinstance(first.head, Span)
    assert (first.head.text, first.label, first.tail.text, first.score) == ("Apple", "founded_by", "Steve Jobs", 0.9)
    assert second.tail.kb_id_ == "Q60"  # the entity itself, with all it carries
    assert doc._.triples == [("Apple", "founded_by", "Steve Jobs"), ("Apple", "located_in", "New York")]
    assert first.triple == doc._.triples[0]
    assert second.inverse is None
    mirror = first.inverse
    assert mirror is not None
    assert mirror.triple == ("Steve Jobs", "founder_of", "Apple")
    assert mirror.inverse == first
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.label = "other"  # type: ignore[misc]


def test_a_mention_of_a_span_group_keeps_its_knowledge_base_id(doc: Doc) -> None:
    doc.spans["linked"] = [Span(doc, 0, 2, "PERSON", kb_id="Q19837"), Span(doc, 5, 7, "GPE", kb_id="another")]
    (again,) = DocBin(docs=[doc], store_user_data=True).get_docs(doc.vocab)
    for founded, located in (doc._.relations, again._.relations):
        assert founded.tail.kb_id_ == "Q19837"
        assert located.tail.kb_id_ == "Q60"  # the entity's own comes first
        assert founded.head.kb_id_ == ""


def test_offsets_are_absolute_and_half_open(doc: Doc) -> None:
    assert doc._.relations[0].to_dict() == {
        "head": {"text": "Apple", "label": "ORG", "start": 3, "end": 4, "start_char": 22, "end_char": 27},
        "tail": {"text": "Steve Jobs", "label": "PERSON", "start": 0, "end": 2, "start_char": 0, "end_char": 10},
        "label": "founded_by",
        "score": 0.9,
        "inverse_label": "founder_of",
    }
    assert "inverse_label" not in doc._.relations[1].to_dict()
    for mention in ("head", "tail"):
        values = doc._.relations[1].to_dict()[mention]
        assert doc.text[values["start_char"] : values["end_char"]] == values["text"]


def leaves(value: Any) -> list[Any]:
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, tuple) else [value]


def test_what_is_stored_is_plain_and_immutable(doc: Doc) -> None:
    doc._.relation_answers = [RelationAnswer(doc.ents[0], doc.ents[1], "made", 0.5)]
    for key, value in doc.user_data.items():
        assert key[0] == "._."
        assert key[2:] == (None, None)
        assert isinstance(value, tuple)
        assert {type(leaf) for leaf in leaves(value)} <= {int, float, str}


def test_a_list_of_views_is_a_copy(doc: Doc) -> None:
    doc._.relations.clear()
    assert len(doc._.relations) == 2


def test_span_sees_its_relations_from_its_side(doc: Doc) -> None:
    person, org, gpe = doc.ents
    assert [r.triple for r in person._.relations] == [("Steve Jobs", "founder_of", "Apple")]
    assert [r.label for r in org._.relations] == ["founded_by", "located_in"]
    assert [r.triple for r in gpe._.relations] == [("Apple", "located_in", "New York")]  # there is no word for it
    assert [r.label for r in doc[0:4]._.relations] == ["founded_by", "located_in"]
    assert doc[0:1]._.relations == doc[4:5]._.relations == []  # a part of a mention is not the mention


# Assigning.


def test_all_forms_that_can_be_assigned_say_the_same(doc: Doc) -> None:
    relation = doc._.relations[0]
    expected = plain(doc)[:1]
    for value in (relation, relation.to_dict()):
        doc._.relations = [value]
        assert plain(doc) == expected
    del expected[0]["inverse_label"]
    for value in (
        (relation.head, "founded_by", relation.tail, 0.9),
        [(3, 4), "founded_by", (0, 2), 0.9],
        ([3, 4], "founded_by", [0, 2], 0.9),
        {"head": {"start": 3, "end": 4}, "tail": (0, 2), "label": "founded_by", "score": 0.9},
    ):
        doc._.relations = (item for item in [value])
        assert plain(doc) == expected
    doc._.relations = [((3, 4), "founded_by", (0, 2))]
    assert doc._.relations[0].score == 1.0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, r"Doc\._\.relations was set to None\. Expected a list"),
        ("founded_by", "Expected a list"),
        ({"head": (0, 2)}, "Expected a list"),
        ([None], r"None cannot be assigned as a relation\. Expected a spacy_relx\.Relation"),
        ([(1, 2)], "cannot be assigned as a relation"),
        ([{"head": (0, 2), "label": "x"}], "cannot be assigned as a relation"),
        ([((0, 2), "", (3, 4))], "has the label ''. Expected a string that is not empty"),
        ([((0, 2), 7, (3, 4))], "has the label 7"),
        ([((0, 2), "x", (3, 4), 1.5)], r"'x' has the score 1.5\. Expected a number in 0\.\.1"),
        ([((0, 2), "x", (3, 4), float("nan"))], "has the score nan"),
        ([((0, 2), "x", (3, 4), True)], "has the score True"),
        ([((0, 2), "x", (3, 4), "0.5")], "has the score '0.5'"),
        ([("Apple", "x", (3, 4))], "'Apple' is not a mention"),
        ([((0, 0), "x", (3, 4))], r"has the tokens 0\.\.0, but the Doc has 8 tokens"),
        ([((0, 9), "x", (3, 4))], r"Expected 0 <= start < end <= 8"),
        ([((-2, -1), "x", (3, 4))], r"-2\.\.-1"),
        ([((0.0, 2.0), "x", (3, 4))], r"0\.0\.\.2\.0"),
        ([((3, 4), "x", (3, 4))], r"'x' has tokens \(3, 4\) as head and as tail.*leave self-relations out"),
        (
            [{"head": {"start": 0, "end": 2, "start_char": 1, "end_char": 10}, "tail": (3, 4), "label": "x"}],
            r"at the characters 1\.\.10 is not one of this Doc",
        ),
        (
            [
                {
                    "head": {"start": 0, "end": 2, "start_char": 0, "end_char": 10, "text": "Bill Gates"},
                    "tail": (3, 4),
                    "label": "x",
                }
            ],
            "'Bill Gates'",
        ),
    ],
)
def test_bad_values_are_named_and_change_nothing(doc: Doc, value: Any, message: str) -> None:
    before = plain(doc)
    with pytest.raises(DataError, match=message):
        doc._.relations = value
    assert plain(doc) == before


def test_a_mention_of_another_doc_is_refused(doc: Doc) -> None:
    other = Doc(Vocab(), words=["Bill", "Gates", "founded", "Microsoft"])
    with pytest.raises(DataError, match="belongs to another Doc"):
        doc._.relations = [(other[0:2], "x", other[3:4])]


def test_mentions_of_a_doc_with_other_tokens_are_found_by_their_characters(doc: Doc) -> None:
    other = make_doc()
    with other.retokenize() as retokenizer:
        retokenizer.merge(other[0:2])
    for value in (doc._.relations, plain(doc)):
        other._.relations = value
        assert other._.triples == doc._.triples
        assert other._.relations[0].head.start == 2


def test_mentions_that_change_while_they_are_assigned_are_what_they_were(doc: Doc) -> None:
    def relations() -> Iterator[Any]:
        place = [0, 1]
        for start in (1, 2):
            place[:] = [start, start + 1]
            yield (place, "before", (start + 1, start + 2))

    doc._.relations = relations()
    assert [(found.head.start, found.tail.start) for found in doc._.relations] == [(1, 2), (2, 3)]


def test_duplicates_collapse_to_the_best() -> None:
    doc = make_doc()
    doc._.relations = [
        ((3, 4), "x", (0, 2), 0.2),
        ((3, 4), "x", (0, 2), 0.8),
        ((3, 4), "x", (0, 2), 0.5),
        ((0, 2), "x", (3, 4), 0.1),
        ((3, 4), "y", (0, 2), 0.3),
    ]
    assert [(r.triple, r.score) for r in doc._.relations] == [
        (("Apple", "x", "Steve Jobs"), 0.8),
        (("Steve Jobs", "x", "Apple"), 0.1),
        (("Apple", "y", "Steve Jobs"), 0.3),
    ]


spans = st.tuples(st.integers(0, 7), st.integers(1, 3)).map(lambda s: (s[0], min(8, s[0] + s[1])))
stored = st.lists(
    st.tuples(spans, st.text(min_size=1).filter(lambda t: t.isprintable()), spans, st.floats(0, 1)).filter(
        lambda r: r[0] != r[2]
    ),
    max_size=6,
)


@given(stored)
def test_any_relations_survive_bytes_docbin_and_assignment(values: list[Any]) -> None:
    doc = make_doc()
    doc._.relations = values
    expected = plain(doc)
    assert len({(*r.triple, r.head.start, r.tail.start) for r in doc._.relations}) == len(expected)
    restored = Doc(doc.vocab).from_bytes(doc.to_bytes())
    assert plain(restored) == expected
    again = Doc(doc.vocab).from_bytes(restored.to_bytes())
    assert plain(again) == expected
    (binned,) = DocBin(docs=[again], store_user_data=True).get_docs(doc.vocab)
    assert plain(binned) == expected
    binned._.relations = binned._.relations
    assert plain(binned) == expected


# Retokenization.


def test_relations_follow_their_mentions_when_tokens_are_merged(doc: Doc) -> None:
    triples = doc._.triples
    spacy.blank("en").create_pipe("merge_entities")(doc)
    assert len(doc) == 6
    assert doc._.triples == triples
    assert [(r.head.start, r.tail.start) for r in doc._.relations] == [(2, 0), (2, 4)]
    assert doc._.relations[1].tail.label_ == "GPE"
    restored = Doc(doc.vocab).from_bytes(doc.to_bytes())
    assert restored._.triples == triples
    assert [r.triple for r in doc[4:5]._.relations] == [("Apple", "located_in", "New York")]
    assert as_doc(doc[2:5])._.triples == triples[1:]


def test_relations_follow_their_mentions_when_tokens_are_split(doc: Doc) -> None:
    triples = doc._.triples
    with doc.retokenize() as retokenizer:
        retokenizer.split(doc[2], ["co", "-", "founded"], heads=[doc[1], doc[1], doc[1]])
    assert doc._.triples == triples
    assert doc._.relations[0].head.start == 5


def test_a_mention_that_was_swallowed_is_the_token_that_holds_it(doc: Doc) -> None:
    with doc.retokenize() as retokenizer:
        retokenizer.merge(doc[3:7])
    (first, _) = doc._.relations
    assert first.head.text == "Apple in New York"


def test_relations_of_another_text_are_an_error() -> None:
    short = Doc(Vocab(), words=["Apple"])
    doc = make_doc()
    doc._.relations = [((3, 4), "x", (5, 7))]
    short.user_data[KEY] = doc.user_data[KEY]
    with pytest.raises(DataError, match=r"points at characters 22\.\.27, but the Doc has 6.*run the component again"):
        _ = short._.relations


# Serialisation.


def test_plain_docbin_loses_them_and_user_data_keeps_them(doc: Doc) -> None:
    (without,) = DocBin(docs=[doc]).get_docs(doc.vocab)
    assert without._.relations == []
    (kept,) = DocBin(docs=[doc], store_user_data=True).get_docs(Vocab())
    assert plain(kept) == plain(doc)


def test_copy_and_pickle(doc: Doc) -> None:
    import pickle

    assert plain(doc.copy()) == plain(doc)
    assert plain(pickle.loads(pickle.dumps(doc))) == plain(doc)


def test_a_docbin_is_read_by_a_process_that_only_imports_the_package(doc: Doc, tmp_path: Any) -> None:
    path = tmp_path / "docs.spacy"
    DocBin(docs=[doc], store_user_data=True).to_disk(path)
    code = (
        "import sys, spacy_relx\n"
        "from spacy.tokens import DocBin\n"
        "from spacy.vocab import Vocab\n"
        "doc, = DocBin().from_disk(sys.argv[1]).get_docs(Vocab())\n"
        "print(doc._.triples)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == str(doc._.triples)


# Parts of a Doc and several Docs.


def test_span_as_doc_drops_what_as_doc_keeps(doc: Doc) -> None:
    span = doc[3:8]
    for copy_user_data in (False, True):
        assert span.as_doc(copy_user_data=copy_user_data)._.relations == []
    doc._.relation_answers = [RelationAnswer(doc.ents[1], doc.ents[2], "made in", 0.5)]
    part = as_doc(span)
    assert part._.triples == [("Apple", "located_in", "New York")]
    assert (part._.relations[0].head.start, part._.relations[0].tail.start_char) == (0, 9)
    assert [answer.head.text for answer in part._.relation_answers] == ["Apple"]
    assert as_doc(doc[0:3])._.relations == []
    assert plain(as_doc(doc[:])) == plain(doc)


@pytest.mark.parametrize("ensure_whitespace", [True, False])
@pytest.mark.parametrize("trailing_space", [True, False])
def test_merge_docs_keeps_what_from_docs_drops(ensure_whitespace: bool, trailing_space: bool) -> None:
    vocab = Vocab()
    short = Doc(vocab, words=["Rome", "Italy"], spaces=[True, trailing_space])
    short._.relations = [((0, 1), "capital_of", (1, 2), 0.7)]
    docs = [
        short,
        Doc(vocab),
        make_doc(vocab, trailing_space=trailing_space),
        Doc(vocab, words=["\n"]),
        make_doc(vocab),
    ]
    for doc in (docs[2], docs[4]):
        doc._.relations = [((3, 4), "located_in", (5, 7), 0.4)]
        doc._.relation_answers = [RelationAnswer(doc[3:4], doc[5:7], "sits in", 0.5)]
    with pytest.warns(UserWarning, match="W101"):
        assert Doc.from_docs(docs, ensure_whitespace=ensure_whitespace)._.relations == []
    merged = merge_docs(docs, ensure_whitespace=ensure_whitespace)  # a warning would be an error
    assert merged._.triples == [("Rome", "capital_of", "Italy"), *[("Apple", "located_in", "New York")] * 2]
    assert [r.score for r in merged._.relations] == [0.7, 0.4, 0.4]
    assert [(r.head.start, r.tail.start) for r in merged._.relations] == [(0, 1), (5, 7), (14, 16)]
    for relation in merged._.relations:
        assert merged.text[relation.tail.start_char : relation.tail.end_char] == relation.tail.text
    assert [answer.tail.text for answer in merged._.relation_answers] == ["New York", "New York"]


def test_merge_docs_still_warns_of_what_it_does_drop(doc: Doc) -> None:
    Doc.set_extension("other_thing", default=None)
    try:
        doc._.other_thing = 1
        with pytest.warns(UserWarning, match="W101.*other_thing") as caught:
            merge_docs([doc, doc])
        assert {"relations" in str(warning.message) for warning in caught} == {False}
    finally:
        Doc.remove_extension("other_thing")


def test_merge_docs_of_nothing() -> None:
    with pytest.raises(DataError, match="was given no Docs"):
        merge_docs([])
    vocab = Vocab()
    assert merge_docs([Doc(vocab), Doc(vocab)])._.relations == []


def test_no_warning_from_reading_and_filtering(doc: Doc) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert filter_spans([r.head for r in doc._.relations])


# Names.


def test_registering_again_changes_nothing_and_another_name_is_separate(doc: Doc) -> None:
    getter = Doc.get_extension("relations")
    register()
    assert Doc.get_extension("relations") == getter
    register("relx_two")
    try:
        doc._.relx_two = [((0, 2), "x", (3, 4))]
        assert doc._.relx_two_triples == [("Steve Jobs", "x", "Apple")]
        assert doc._.relx_two_answers == []
        assert len(doc._.relations) == 2
        assert len(doc[3:4]._.relx_two) == 1
        assert as_doc(doc[0:4], attr="relx_two")._.relx_two_triples == [("Steve Jobs", "x", "Apple")]
    finally:
        for owner, name in (
            (Doc, "relx_two"),
            (Doc, "relx_two_triples"),
            (Doc, "relx_two_answers"),
            (Span, "relx_two"),
        ):
            owner.remove_extension(name)
