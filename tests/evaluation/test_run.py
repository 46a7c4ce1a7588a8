"""From Docs to records under the three protocols, with an engine that answers as it is told."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import spacy
from spacy.tokens import Doc, Span
from spacy.training import Example
from tiny import FACTORY, LABELS, TEXT, ScriptedEngine, load_tokenizer, model_block, pipeline, scripted

from spacy_relx.errors import ConfigError, DataError
from spacy_relx.evaluation.counts import Counts
from spacy_relx.evaluation.leaks import leak_report, training_sentences
from spacy_relx.evaluation.metrics import score
from spacy_relx.evaluation.prompt_variants import choose_examples, compare_variants, variants
from spacy_relx.evaluation.published import as_published, gold_schema
from spacy_relx.evaluation.run import evaluate

if TYPE_CHECKING:
    from pathlib import Path

    from spacy.language import Language

    from spacy_relx.evaluation.records import PairRecord, RunInfo

JOBS, APPLE, CUPERTINO, ADA = "Steve Jobs", "Apple", "Cupertino", "Ada Lovelace"
PLACES = {JOBS: (0, 2, "PERSON"), APPLE: (5, 6, "ORG"), CUPERTINO: (7, 8, "GPE"), ADA: (9, 11, "PERSON")}
SECOND_APPLE = (14, 15, "ORG")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tokenizer(embedded_base: Path) -> Any:
    return load_tokenizer(embedded_base)


def make(tokenizer: Any, script: Any, **config: Any) -> tuple[Language, ScriptedEngine]:
    nlp = pipeline(**({"no_relation": "no_relation", "threshold": None} | config))
    if not callable(script):
        told = script
        nothing: Any = ("no_relation", 1.0) if config.get("decoding") == "free" else {"no_relation": 1.0}
        script = lambda head, tail: told.get((head, tail), nothing)  # noqa: E731
    return nlp, scripted(nlp, ScriptedEngine(tokenizer, script))


def gold_doc(nlp: Language, relations: list[tuple[str, str, str]], *, sentences: bool = True, **data: Any) -> Doc:
    """The standard text with its entities; relations name the first mention of each."""
    doc = nlp.make_doc(TEXT)
    assert doc[5].text == doc[14].text == APPLE
    doc.ents = [Span(doc, start, end, kind) for start, end, kind in [*PLACES.values(), SECOND_APPLE]]
    if sentences:
        for token in doc:
            token.is_sent_start = token.i in (0, 9)
    doc._.relations = [(PLACES[head][:2], label, PLACES[tail][:2]) for head, label, tail in relations]
    doc.user_data.update(data)
    return doc


def asked(nlp: Any, docs: list[Doc], protocol: Any = "given", **more: Any) -> tuple[RunInfo, list[PairRecord]]:
    info, stream = evaluate(nlp, docs, protocol, dataset="demo", split="dev", **more)
    return info, list(stream)


def row(record: PairRecord) -> tuple[Any, ...]:
    return record.head.text, record.tail.text, record.gold, record.answer, record.enumerated


def test_given_pairs(tokenizer: Any) -> None:
    script = {
        (APPLE, JOBS): {"founded_by": 0.6, "no_relation": 0.3, "works_for": 0.1},
        (JOBS, APPLE): {"no_relation": 0.5, "works_for": 0.4},
        (APPLE, CUPERTINO): {"works_for": 0.9},
    }
    nlp, engine = make(tokenizer, script)
    doc = gold_doc(
        nlp,
        [
            (APPLE, "founded_by", JOBS),
            (APPLE, "owned_by", JOBS),
            (JOBS, "Other", APPLE),
            (APPLE, "headquartered_in", CUPERTINO),
        ],
        id="first",
    )
    info, records = asked(nlp, [doc])
    assert engine.pairs == [(APPLE, JOBS), (JOBS, APPLE), (APPLE, CUPERTINO)]
    assert [row(r) for r in records] == [
        (APPLE, JOBS, ("founded_by", "owned_by"), "founded_by", True),
        (JOBS, APPLE, (), None, True),
        (APPLE, CUPERTINO, ("headquartered_in",), "works_for", True),
    ]
    # The best relation is always there beside the negative, and no threshold applies.
    assert [label for label, _ in records[1].scores] == ["no_relation", "works_for"]
    assert records[0].score == pytest.approx(0.6)
    first = records[0]
    assert first.text[first.head.start : first.head.end] == first.head.text == APPLE
    assert (first.head.type, first.tail.type, first.doc) == ("ORG", "PERSON", "first")
    assert first.text[slice(*first.sentence)] == "Steve Jobs co-founded Apple in Cupertino."
    assert score(info, records).micro == Counts(1, 2, 3)
    assert score(info, records).ceiling == Counts(2, 2, 3)
    assert score(info, records).tally.false_positive_rate == 0.0
    assert (info.dataset, info.split, info.negative, info.labels) == ("demo", "dev", "no_relation", tuple(LABELS))
    assert info.counts["gold_labels_outside_schema"] == {"owned_by": 1}
    assert {key: info.counts[key] for key in ("n_docs", "n_asked", "n_gold", "n_gold_pairs")} == {
        "n_docs": 1,
        "n_asked": 3,
        "n_gold": 3,
        "n_gold_pairs": 2,
    }
    assert info.settings["schema"]["labels"].keys() >= set(LABELS)
    assert info.settings["use_types"] is False
    assert info.settings["threshold"] == 0.5


def test_types_limit_given_pairs_on_demand(tokenizer: Any) -> None:
    nlp, engine = make(tokenizer, {(APPLE, CUPERTINO): {"works_for": 0.9, "headquartered_in": 0.05}})
    doc = gold_doc(nlp, [(APPLE, "headquartered_in", CUPERTINO), (JOBS, "works_for", CUPERTINO)])
    info, records = asked(nlp, [doc], use_types=True)
    assert engine.pairs == [(APPLE, CUPERTINO)]
    assert [row(r)[3:] for r in records] == [("headquartered_in", True), (None, False)]
    assert info.counts["n_not_enumerated"] == 1
    assert score(info, records).tally.candidate_recall == 0.5


def test_gold_entities(tokenizer: Any) -> None:
    nlp, engine = make(tokenizer, {(APPLE, JOBS): {"founded_by": 0.9}, (ADA, APPLE): {"works_for": 0.8}})
    # One gold pair lies across sentences, so it is never asked about.
    doc = gold_doc(nlp, [(APPLE, "founded_by", JOBS), (ADA, "works_for", APPLE), (JOBS, "NA", APPLE)])
    info, records = asked(nlp, [doc], "gold_entities")
    assert (JOBS, CUPERTINO) not in engine.pairs  # no label takes such types
    assert [row(r) for r in records if r.gold] == [
        (APPLE, JOBS, ("founded_by",), "founded_by", True),
        (ADA, APPLE, ("works_for",), None, False),
    ]
    result = score(info, records)
    assert result.micro == Counts(1, 2, 2)
    assert result.tally.candidate_recall == 0.5
    assert result.n_asked == len(engine.pairs) == info.counts["n_asked"]
    assert result.tally.n_false_alarms == 1


def test_predicted_entities_are_matched_by_characters(tokenizer: Any) -> None:
    nlp, _ = make(tokenizer, lambda head, tail: {"founded_by": 0.9} if head == APPLE else {"no_relation": 1.0})
    doc = gold_doc(nlp, [(APPLE, "founded_by", JOBS), (CUPERTINO, "part_of", APPLE)])
    # Other tokens, another type for one mention, and a mention that the pipeline does not find.
    words = ["Steve", "Jobs", "co", "-", "founded", "Ap", "ple", "in", "Cup", "ertino."]
    spaces = [True, True, False, False, True, False, True, True, False, False]
    split = Doc(nlp.vocab, words, spaces)
    split.ents = [Span(split, 0, 2, "PERSON"), Span(split, 5, 7, "COMPANY"), Span(split, 8, 9, "GPE")]
    split._.relations = [((5, 7), "founded_by", (0, 2)), ((8, 9), "located_in", (5, 7))]
    info, records = asked(nlp, [doc, split], "predicted_entities")
    first, second = ([r for r in records if r.doc == name and r.gold] for name in "01")
    assert [row(r)[2:] for r in first] == [(("founded_by",), "founded_by", True), (("part_of",), None, False)]
    assert [row(r)[2:] for r in second] == [(("founded_by",), "founded_by", True), (("located_in",), None, False)]
    assert second[0].head.type == "ORG"
    assert second[0].gold_types == ("COMPANY", "PERSON")
    assert second[1].head.text == "Cup"
    result = score(info, records)
    assert (result.micro.hits, result.tally.strict.hits) == (2, 1)
    assert result.micro.gold == 4


def test_types_of_predicted_entities_are_called_what_the_data_set_calls_them(tokenizer: Any, tmp_path: Path) -> None:
    schema = {"name": "firms", "labels": {"founded_by": {"head": ["Firm"], "tail": ["Peop"]}}}
    (tmp_path / "firms.json").write_text(json.dumps(schema))
    labels = {"@misc": "spacy-relx.Schema.v1", "path": str(tmp_path / "firms.json")}
    nlp, engine = make(tokenizer, lambda head, tail: {"founded_by": 0.9}, labels=labels)
    doc = gold_doc(nlp, [(APPLE, "founded_by", JOBS)])
    doc.ents = [Span(doc, 5, 6, "Firm"), Span(doc, 0, 2, "Peop")]
    doc._.relations = [((5, 6), "founded_by", (0, 2))]
    info, records = asked(nlp, [doc], "predicted_entities")
    assert (info.counts["n_asked"], info.counts["n_not_enumerated"]) == (0, 1)
    names = {"ORG": "Firm", "PERSON": "Peop"}
    info, records = asked(nlp, [doc], "predicted_entities", entity_types=names)
    assert info.settings["entity_types"] == names
    assert set(engine.pairs) == {(APPLE, JOBS), (APPLE, ADA)}
    (first, second) = sorted(records, key=lambda r: r.head.start)
    assert (first.head.type, first.tail.type, first.gold_types) == ("Firm", "Peop", ("Firm", "Peop"))
    assert (second.gold, second.gold_types) == ((), None)
    result = score(info, records)
    assert (result.micro.hits, result.tally.strict.hits) == (1, 1)
    with pytest.raises(ConfigError, match="named for the protocol gold_entities"):
        asked(nlp, [doc], "gold_entities", entity_types=names)


def test_free_decoding(tokenizer: Any) -> None:
    script = {
        (APPLE, JOBS): ("Founded_By\nbecause", 0.7),
        (JOBS, APPLE): ("invented_by", 0.6),
        (APPLE, CUPERTINO): ("no_relation", 0.5),
        (CUPERTINO, APPLE): ("None", 0.4),
    }
    nlp, _ = make(tokenizer, script, decoding="free")
    doc = gold_doc(nlp, [(head, "founded_by", tail) for head, tail in script])
    info, records = asked(nlp, [doc])
    assert [(r.answer, r.in_schema) for r in records] == [
        ("founded_by", True),
        ("invented_by", False),
        (None, True),
        (None, True),
    ]
    assert [r.scores for r in records][2:] == [
        (("no_relation", pytest.approx(0.5)),),
        (("no_relation", pytest.approx(0.4)),),
    ]
    assert score(info, records).micro == Counts(1, 2, 4)


def test_sentence_boundaries_come_from_the_pipeline(tokenizer: Any) -> None:
    nlp, engine = make(tokenizer, {})
    asked(nlp, [gold_doc(nlp, [(APPLE, "founded_by", JOBS)], sentences=False)], "gold_entities")
    assert (JOBS, APPLE) in engine.pairs
    assert all(text.count("Ada") == 0 or text.count("Jobs") == 0 for text in engine.prompts)


def test_a_component_alone_reads_annotated_docs(tokenizer: Any) -> None:
    nlp, _ = make(tokenizer, {(APPLE, JOBS): {"founded_by": 0.9}})
    docs = [gold_doc(nlp, [(APPLE, "founded_by", JOBS)], id="same") for _ in range(3)]
    done: list[int] = []
    info, records = asked(nlp.get_pipe(FACTORY), docs, batch_size=2, progress=done.append)
    assert [r.doc for r in records] == ["same", "same#2", "same#3"]
    assert done == [2, 3]
    assert score(info, records).micro.f == 1.0


def test_what_cannot_be_evaluated_is_refused(tokenizer: Any) -> None:
    nlp, _ = make(tokenizer, {})
    with pytest.raises(ConfigError, match="component alone"):
        asked(nlp.get_pipe(FACTORY), [], "predicted_entities")
    with pytest.raises(DataError, match="'everything'"):
        asked(nlp, [], "everything")
    with pytest.raises(ConfigError, match="no relation extractor"):
        asked(spacy.blank("en"), [])
    bare = spacy.blank("en")
    bare.add_pipe(FACTORY, config={"model": model_block("nowhere")})
    with pytest.raises(ConfigError, match="finds entities"):
        asked(bare, [], "predicted_entities")


def test_leaks(tokenizer: Any) -> None:
    script = {(APPLE, JOBS): {"founded_by": 0.9}, (ADA, APPLE): {"member_of": 0.9}}
    nlp, _ = make(tokenizer, script)
    doc = gold_doc(nlp, [(APPLE, "founded_by", JOBS)])
    doc._.relations = [*doc._.relations, (PLACES[ADA][:2], "works_for", SECOND_APPLE[:2])]
    train = nlp.make_doc("steve jobs co-founded apple  in Cupertino .")
    info, records = asked(nlp, [doc], train=training_sentences([train]))
    assert [r.seen for r in records] == ["alike", ""]
    expected = {"n_sentences": 1, "n_exact": 0, "n_pairs": 1, "micro_f": 0.5, "micro_f_without": 0.0}
    assert leak_report(info, records) == expected
    info, records = asked(nlp, [doc], train=training_sentences([doc]))
    assert [r.seen for r in records] == ["exact", "exact"]
    assert leak_report(info, records) == {**expected, "n_sentences": 2, "n_exact": 2, "n_pairs": 2}
    assert leak_report(*asked(nlp, [doc])) is None


def test_records_and_the_pipeline_agree(tiny_llama: Path) -> None:
    """A random model: what the component writes on a Doc is what the records say, above the same threshold."""
    nlp = pipeline(tiny_llama, no_relation="no_relation", threshold=0.0)
    doc = gold_doc(nlp, [(APPLE, "founded_by", JOBS)])
    info, records = asked(nlp, [doc], "gold_entities")
    written = nlp.get_pipe(FACTORY)(doc.copy())._.relations
    assert [(r.head.text, r.answer, r.tail.text, pytest.approx(r.score)) for r in records if r.answer] == [
        (*relation.triple, relation.score) for relation in written
    ]
    example = Example(nlp.get_pipe(FACTORY)(doc.copy()), doc)
    scores = nlp.get_pipe(FACTORY).score([example])
    result = score(info, records)
    assert scores["rel_micro_f"] == result.micro.f
    assert scores["rel_candidate_recall"] == result.tally.candidate_recall == 1.0
    assert scores["rel_false_positive_rate"] == result.tally.false_positive_rate
    assert scores["rel_strict_f"] == result.micro.f


# The component's own part


def test_asking_about_other_pairs_writes_nothing(tokenizer: Any) -> None:
    nlp, engine = make(tokenizer, {(APPLE, JOBS): {"founded_by": 0.9}})
    component = nlp.get_pipe(FACTORY)
    doc = gold_doc(nlp, [])
    apple, jobs = doc[5:6], doc.ents[0]
    (answered,) = component.ask([doc], [[(apple, jobs)]], top_k=3, use_types=False)
    assert engine.pairs == [(APPLE, JOBS)]
    assert len(answered.results[0].scores) == 3
    assert doc._.relations == []
    assert [(h.text, t.text) for h, t in component.candidate_pairs(doc)] == [
        (JOBS, APPLE),
        (APPLE, JOBS),
        (APPLE, CUPERTINO),
        (ADA, APPLE),
        (APPLE, ADA),
    ]
    with pytest.raises(ValueError, match="zip"):
        component.ask([doc], [])


# Wordings


def test_prompt_variants(tokenizer: Any) -> None:
    script = {(APPLE, JOBS): {"founded_by": 0.9}}
    nlp, engine = make(tokenizer, script)
    component = nlp.get_pipe(FACTORY)
    docs = [gold_doc(nlp, [(APPLE, "founded_by", JOBS)])]
    train = [gold_doc(nlp, [(APPLE, "founded_by", JOBS), (JOBS, "unknown", APPLE), (JOBS, "NA", CUPERTINO)])]
    examples = choose_examples(train, labels=component.labels, negative="no_relation")
    assert [(e.head, e.tail, e.label) for e in examples] == [
        (APPLE, JOBS, "founded_by"),
        (JOBS, CUPERTINO, "no_relation"),
    ]
    assert examples[0].text == "Steve Jobs co-founded Apple in Cupertino."
    everything = variants()
    assert len(everything) == len(set(everything)) == 32
    chosen = variants(systems=("generic", "schema"), decodings=("constrained",))
    results = list(compare_variants(component, docs, chosen, examples=examples, dataset="demo", split="dev"))
    assert [variant for variant, _, _ in results] == chosen
    assert all(score(info, records).micro.f == 1.0 for _, info, records in results)
    assert results[1][1].settings["variant"] == chosen[1].to_dict()
    for prompt, variant in zip(engine.prompts, chosen):
        assert ("founded_by, " in prompt.split("Sentence:")[0]) == (variant.system == "schema")
        assert prompt.count(variant.cue) == 1 + variant.n_examples
    assert component.settings.prompt.examples == ()  # the component itself stays as it was
    with pytest.raises(DataError, match="2 demonstrations, and 0"):
        list(compare_variants(component, docs, everything, dataset="demo", split="dev"))
    with pytest.raises(DataError, match="give 1 demonstrations"):
        choose_examples(docs, labels=component.labels, negative=None)


def test_the_published_way_to_the_letter(tokenizer: Any) -> None:
    # Sixty-four tokens are enough for an answer of sixty words, and more are cut.
    long = " ".join(["label"] * 80)
    script = {
        (APPLE, JOBS): ('"Founded_By"\nbecause', 0.9),
        (JOBS, APPLE): ("Answer: other", 0.8),
        (ADA, APPLE): (long, 0.7),
    }
    nlp, engine = make(tokenizer, script, labels=LABELS, decoding="constrained")
    component = nlp.get_pipe(FACTORY)
    docs = [
        gold_doc(nlp, [(APPLE, "founded_by", JOBS), (JOBS, "Other", APPLE), (ADA, "a.b", APPLE)]),
        gold_doc(nlp, [(APPLE, "Works For", JOBS)]),
    ]
    train = [gold_doc(nlp, [(APPLE, "founded_by", CUPERTINO), (ADA, "OTHER", APPLE), (JOBS, "unknown", APPLE)])]
    changed = as_published(component, docs, train)
    info, records = asked(nlp, docs[:1], component=changed, settings={"published": {}})
    system = (
        "You are a relation extraction system. Be concise and direct. Output ONLY ONE relation type that holds between "
        "the two mentioned entities. You MUST choose exactly one label from this allowed set: Other, Works For, a.b, "
        "founded_by Do not output any explanation, punctuation, or extra. text\N{EM DASH}only the label."
    )
    turn = "<|im_start|>user\nSentence: {}\nEntity 1: {}\nEntity 2: {}\nAnswer:<|im_end|>\n<|im_start|>assistant\n"
    first = "Steve Jobs co-founded Apple in Cupertino."
    shots = [
        turn.format(first, APPLE, CUPERTINO) + "founded_by<|im_end|>\n",
        turn.format(TEXT, ADA, APPLE) + "Other<|im_end|>\n",  # over both sentences
    ]
    beginning = f"<|im_start|>system\n{system}<|im_end|>\n"
    query = turn.format(first, APPLE, JOBS)
    assert engine.prompts[0] in (f"{beginning}{''.join(order)}{query}" for order in (shots, shots[::-1]))
    assert info.way == "published"
    assert (info.labels, info.negative) == (("Works For", "a.b", "founded_by"), "Other")
    assert (info.settings["decoding"], info.settings["use_types"]) == ("free", False)
    assert [(r.answer, r.in_schema, r.gold) for r in records[:2]] == [
        ("founded_by", True, ("founded_by",)),
        (None, True, ()),
    ]
    assert records[2].gold == ("a.b",)
    assert len(tokenizer.encode(records[2].answer)) == 64
    assert component.settings.decoding == "constrained"  # the component itself stays as it was


def test_demonstrations_are_drawn_with_a_seed(tokenizer: Any) -> None:
    nlp, _ = make(tokenizer, {})
    places = [(APPLE, JOBS), (JOBS, APPLE), (APPLE, CUPERTINO), (ADA, CUPERTINO)]
    docs = [gold_doc(nlp, [(head, label, tail) for head, tail in places]) for label in ("r", "s", "t", "NA")]

    def draw(seed: int, negative: str | None = None) -> list[tuple[str, ...]]:
        shots = choose_examples(docs, labels=("r", "s", "t"), negative=negative, rng=Random(seed))
        return [(shot.label, shot.head, shot.tail) for shot in shots]

    drawn = {seed: draw(seed) for seed in range(40)}
    assert all(len({label for label, *_ in shots}) == 2 for shots in drawn.values())
    assert drawn == {seed: draw(seed) for seed in range(40)}
    assert {label for shots in drawn.values() for label, *_ in shots} == {"r", "s", "t"}
    assert {pair for shots in drawn.values() for _, *pair in map(tuple, shots) for pair in [tuple(pair)]} == set(places)
    assert any(label == "none" for seed in range(40) for label, *_ in draw(seed, "none"))
    with pytest.raises(DataError, match="give 1 demonstrations"):
        choose_examples(docs, labels=("r",), negative=None, rng=Random(0))


def test_gold_labels_are_the_schema(tokenizer: Any) -> None:
    nlp, _ = make(tokenizer, {})
    schema = gold_schema([gold_doc(nlp, [(APPLE, "b", JOBS), (JOBS, "/a/b./c", APPLE), (ADA, "B", APPLE)])])
    assert (schema.names, schema.no_relation) == (("/a/b./c", "B", "b"), None)
    with pytest.raises(DataError, match="no labels to list"):
        gold_schema([gold_doc(nlp, [])])
