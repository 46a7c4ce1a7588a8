"""The scorer, against hand-worked examples and the obvious count."""

from __future__ import annotations

from typing import Any

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import registry
from spacy.vocab import Vocab

from spacy_relx import RelationAnswer, relation
from spacy_relx.schema import Schema, parse_labels
from spacy_relx.scorer import NEGATIVE_LABELS, make_relation_scorer, normalise_answer, score_relations

relation.register()
VOCAB = Vocab()
Row = tuple[tuple[int, int], str, tuple[int, int]]
A, B, C, D = (0, 1), (1, 2), (2, 4), (5, 6)


def make_doc(rows: list[Row] = (), answers: list[str] = (), attr: str = "relations", n_tokens: int = 6) -> Doc:  # type: ignore[assignment]
    doc = Doc(VOCAB, [f"w{i}" for i in range(n_tokens)])
    setattr(doc._, attr, list(rows))
    found = [RelationAnswer(doc[0:1], doc[1:2], text, 0.9) for text in answers]
    setattr(doc._, relation.answers_attr(attr), found)
    return doc


def score(*pairs: tuple[list[Row], list[Row]], answers: list[str] = (), **kwargs: Any) -> dict[str, Any]:  # type: ignore[assignment]
    """Score (predicted, gold) pairs; the free answers are those of the first Doc."""
    examples = [
        Example(make_doc(predicted, answers if i == 0 else ()), make_doc(gold))
        for i, (predicted, gold) in enumerate(pairs)
    ]
    return score_relations(examples, **kwargs)


def test_by_hand() -> None:
    # One hit, one wrong label, one wrong direction, one pair nobody asked about, one invented pair.
    gold = [(A, "r", B), (A, "r", C), (B, "s", C), (C, "s", D)]
    predicted = [(A, "r", B), (A, "s", C), (C, "s", B), (D, "r", A)]
    scores = score((predicted, gold))
    assert scores["rel_micro_p"] == 1 / 4
    assert scores["rel_micro_r"] == 1 / 4
    assert scores["rel_micro_f"] == 1 / 4
    assert scores["rel_per_type"] == {"r": {"p": 0.5, "r": 0.5, "f": 0.5}, "s": {"p": 0.0, "r": 0.0, "f": 0.0}}
    assert scores["rel_macro_f"] == 0.25


def test_gold_pairs_that_were_never_enumerated_are_misses() -> None:
    scores = score(([(A, "r", B)], [(A, "r", B), (A, "r", C), (A, "r", D)]), ([], [(A, "r", B)]))
    assert scores["rel_micro_p"] == 1.0
    assert scores["rel_micro_r"] == 1 / 4
    assert scores["rel_micro_f"] == pytest.approx(0.4)


@pytest.mark.parametrize("negative", [*sorted(NEGATIVE_LABELS - {""}), "Other", "NA", "No_Relation"])
def test_negatives_are_no_relations_on_either_side(negative: str) -> None:
    rows = [(A, "r", B), (B, negative, C)]
    assert score((rows, rows)) == score(([(A, "r", B)], [(A, "r", B)]))
    # A confusion with the negative still counts: once as a miss, once as an invention.
    assert score(([(A, negative, B), (B, "r", C)], [(A, "r", B), (B, negative, C)]))["rel_micro_f"] == 0.0


def test_a_negative_label_of_another_name() -> None:
    rows = [(A, "r", B), (B, "Unrelated", C)]
    assert score((rows, [(A, "r", B)]))["rel_micro_p"] == 0.5
    assert score((rows, [(A, "r", B)]), no_relation="unrelated")["rel_micro_p"] == 1.0


def test_free_answers_outside_the_schema_are_inventions_and_misses() -> None:
    scores = score(([(A, "r", B)], [(A, "r", B), (A, "r", C)]), answers=["invented_by", "r2"])
    assert scores["rel_micro_p"] == 1 / 3
    assert scores["rel_micro_r"] == 1 / 2
    assert scores["rel_per_type"]["r"] == {"p": 1.0, "r": 0.5, "f": pytest.approx(2 / 3)}


def test_free_answers_that_say_nothing_are_not_inventions() -> None:
    said = ["none", " Answer: None", '"no_relation"\nbecause', "", "NA"]
    assert score(([(A, "r", B)], [(A, "r", B)]), answers=said)["rel_micro_p"] == 1.0
    assert score(([(A, "r", B)], [(A, "r", B)]), answers=["nope"], no_relation="nope")["rel_micro_p"] == 1.0


@pytest.mark.parametrize(
    ("text", "said"),
    [("  Works_For\nx", "works_for"), ("Answer: 'a  b'", "a b"), ("\n", "none"), ("`x`", "x"), ("", "none")],
)
def test_answers_are_compared_as_the_published_evaluation_does(text: str, said: str) -> None:
    assert normalise_answer(text) == said


def test_without_gold_relations_there_is_no_score() -> None:
    for scores in (score(), score(([(A, "r", B)], [])), score(([], [(A, "NA", B)]))):
        assert set(scores) == {"rel_micro_p", "rel_micro_r", "rel_micro_f", "rel_macro_f", "rel_per_type"}
        assert set(scores.values()) == {None}


def test_docs_without_gold_relations_still_count_inventions() -> None:
    assert score(([(A, "r", B)], []), ([(A, "r", B)], [(A, "r", B)]))["rel_micro_p"] == 0.5


def test_mentions_are_compared_by_characters() -> None:
    whole = make_doc([((0, 1), "r", (2, 4))])
    split = Doc(VOCAB, ["w", "0", "w1", "w2", "w3", "w4", "w5"], spaces=[False, *[True] * 6])
    assert split.text == whole.text
    split._.relations = [((0, 2), "r", (3, 5))]
    assert score_relations([Example(split, whole)])["rel_micro_f"] == 1.0


def test_symmetric_and_mirrored_relations_count_in_either_order() -> None:
    schema = parse_labels({"spouse": {"symmetric": True}, "parent_of": {"inverse": "child_of"}, "child_of": None})
    predicted = [(A, "spouse", B), (A, "parent_of", C)]
    gold = [(B, "spouse", A), (C, "child_of", A)]
    assert score((predicted, gold))["rel_micro_f"] == 0.0
    scores = score((predicted, gold), schema=schema)
    assert scores["rel_micro_f"] == 1.0
    assert set(scores["rel_per_type"]) == {"spouse", "parent_of"}
    # Both directions of one symmetric relation are one relation.
    assert score((predicted, [*gold, (A, "spouse", B)]), schema=schema)["rel_micro_r"] == 1.0


def test_labels_that_the_schema_lacks_are_scored_as_they_are() -> None:
    scores = score(([(A, "new", B)], [(B, "new", A), (A, "new", B)]), schema=parse_labels(["r"]))
    assert (scores["rel_micro_p"], scores["rel_micro_r"]) == (1.0, 0.5)


# The obvious count

ROWS = st.lists(
    st.tuples(st.sampled_from([A, B]), st.sampled_from(["r", "s", "sym", "NA"]), st.sampled_from([C, D])), max_size=5
)


@settings(max_examples=150, deadline=None)
@given(data=st.lists(st.tuples(ROWS, ROWS, st.lists(st.sampled_from(["junk", "none"]), max_size=2)), max_size=3))
def test_scores_are_the_obvious_ones(data: list[tuple[list[Row], list[Row], list[str]]]) -> None:
    schema = Schema(parse_labels({"r": None, "s": None, "sym": {"symmetric": True}}).labels)
    examples, n_hits, n_predicted, n_gold = [], 0, 0, 0
    for predicted, gold, answers in data:
        flipped = [(tail, label, head) if label == "sym" else (head, label, tail) for head, label, tail in gold]
        examples.append(Example(make_doc(predicted, answers), make_doc(flipped)))
        kept = [{row for row in rows if row[1] != "NA"} for rows in (predicted, gold)]
        n_hits += len(kept[0] & kept[1])
        n_predicted += len(kept[0]) + answers.count("junk")
        n_gold += len(kept[1])
    scores = score_relations(examples, schema=schema)
    if not n_gold:
        assert scores["rel_micro_f"] is None
        return
    assert scores["rel_micro_p"] == (n_hits / n_predicted if n_predicted else 0.0)
    assert scores["rel_micro_r"] == n_hits / n_gold
    assert scores["rel_micro_f"] == pytest.approx(2 * n_hits / (n_predicted + n_gold))


# In a pipeline


def pipeline(**config: Any) -> tuple[spacy.Language, Any]:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    labels = {"spouse": {"symmetric": True}, "knows": None}
    return nlp, nlp.add_pipe("llama_relation_extractor", config={"labels": labels, **config})


def answering(pipe: Any, rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the component write these relations instead of asking a model."""

    def process(docs: list[Doc], **_: Any) -> Any:
        for doc in docs:
            setattr(doc._, pipe.settings.attr, rows)
            yield doc

    monkeypatch.setattr(pipe, "pipe", process)


@pytest.mark.parametrize("attr", ["relations", "relx_scored"])
def test_evaluate_scores_what_the_component_writes(attr: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nlp, pipe = pipeline(attr=attr, no_relation="unrelated")
    answering(pipe, [(A, "spouse", B), (A, "knows", C), (B, "unrelated", C)], monkeypatch)
    gold = nlp.make_doc("w0 w1 w2 w3 w4 w5")
    setattr(gold._, attr, [(B, "spouse", A), (C, "knows", A)])
    scores = nlp.evaluate([Example(nlp.make_doc(gold.text), gold)])
    assert scores["rel_micro_p"] == scores["rel_micro_r"] == scores["rel_micro_f"] == 0.5
    assert scores["rel_per_type"]["spouse"]["f"] == 1.0
    assert scores["rel_macro_f"] == 0.5


def test_the_registered_scorer_may_name_another_attribute() -> None:
    relation.register("gold_links")
    scorer = registry.scorers.get("spacy-relx.relation_scorer.v1")(attr="gold_links")
    doc = make_doc([(A, "r", B)], attr="gold_links")
    assert scorer([Example(doc, doc)], attr="relations", labels=("r",))["rel_micro_f"] == 1.0
    assert make_relation_scorer()([Example(doc, doc)])["rel_micro_f"] is None


def test_score_weights_ask_for_micro_f() -> None:
    nlp, _ = pipeline()
    weights = nlp.config["training"]["score_weights"]
    assert weights["rel_micro_f"] > 0
    assert {name for name in weights if name.startswith("rel_") and weights[name] is None} == {
        "rel_micro_p",
        "rel_micro_r",
        "rel_macro_f",
        "rel_per_type",
    }
