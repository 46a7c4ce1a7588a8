"""Rows as a pipeline meets them: the mixture's settings, the rows it makes, and the way from Docs to contexts."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Span
from spacy.util import registry
from thinc.api import Config
from tiny import FACTORY, LABELS, TEXT, ScriptedEngine, pipeline, scripted

from spacy_relx.chat import ChatTemplate
from spacy_relx.errors import ConfigError, DataError
from spacy_relx.prompt_block import make_gentune_prompt
from spacy_relx.prompts import Example, clean
from spacy_relx.schema import parse_labels
from spacy_relx.training.contexts import AnnotatedContext, AnnotatedPair, forms, settled
from spacy_relx.training.demonstrations import Demonstrations
from spacy_relx.training.groups import epoch_groups, rng_for, rows
from spacy_relx.training.label_wordings import packaged_wordings, read_wordings
from spacy_relx.training.mixture import Mixture, make_mixture, mixture_from
from spacy_relx.training.rows import RowGroup, read_rows, write_rows
from spacy_relx.training.sentences import (
    LABEL_TYPES,
    NEGATIVE,
    NO_CANDIDATE,
    TYPES,
    Skipped,
    contexts_of,
    read_contexts,
)

if TYPE_CHECKING:
    from pathlib import Path

    from spacy.tokens import Doc

NAMES = ("a", "b", "c", "d", "e")
SCHEMA = parse_labels({name: {"description": f"what {name} means"} for name in NAMES})
PLAIN = parse_labels(list(NAMES))
NONE = "no_relation"
WORDING = make_gentune_prompt()
TYPED = "Sentence: {sentence}\nEntity 1: {head} ({head_type})\nEntity 2: {tail} ({tail_type})\n{cue}"
WORDS = {
    "labels": {
        # "b" is another label's name, and "same" is offered twice: neither may stand for two labels.
        "a": {"paraphrases": ["A one", "A two", "b", "same"], "definitions": ["a is first", "a leads"]},
        "b": {"paraphrases": ["same"]},
        "no_relation": {"paraphrases": ["nothing"]},
    }
}


@pytest.fixture(scope="session")
def wordings(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("wordings") / "words.json"
    path.write_text(json.dumps(WORDS))
    return str(path)


# Strategies


def pair(i: int, j: int, labels: tuple[str, ...] = (), *, stated: bool = False) -> AnnotatedPair:
    return AnnotatedPair(f"m{i}", f"m{j}", f"T{i}", f"T{j}", labels, NAMES, stated)


@st.composite
def contexts(draw: st.DrawFn, text: str = "m0 met m1 and m2 and m3.") -> AnnotatedContext:
    """All ordered pairs of some mentions, some with labels."""
    n = draw(st.integers(2, 4))
    held = st.lists(st.sampled_from(NAMES), unique=True, max_size=2).map(tuple)
    pairs = []
    for i in range(n):
        for j in range(n):
            if i != j:
                labels = draw(st.one_of(st.just(()), held))
                pairs.append(pair(i, j, labels, stated=not labels and draw(st.integers(0, 5)) == 0))
    return AnnotatedContext(text, tuple(pairs))


def mixtures(wordings: str) -> st.SearchStrategy[Mixture]:
    chance = st.sampled_from([0.0, 0.5, 1.0])
    count = st.one_of(st.none(), st.integers(1, 6))
    return st.builds(
        lambda low, high, **kwargs: Mixture(
            min_labels=low, max_labels=high if high is None or low is None else max(low, high), **kwargs
        ),
        low=count,
        high=count,
        negatives=st.one_of(st.none(), st.integers(0, 4)),
        negatives_alone=st.one_of(st.none(), st.integers(0, 3)),
        both_orders=st.booleans(),
        shuffle_labels=chance,
        paraphrases=chance,
        definitions=st.one_of(st.none(), chance),
        generic=chance,
        examples=st.sampled_from([None, (0,), (2,), (0, 2), (1, 3)]),
        types=chance,
        typed_user=st.just(TYPED),
        wordings=st.just(wordings),
        groups=st.integers(1, 2),
        seed=st.integers(0, 5),
    )


def others(n: int = 6) -> list[AnnotatedContext]:
    return [AnnotatedContext(f"Text {i} has m0 and m1 .", (pair(0, 1, (NAMES[i % 5],)), pair(1, 0))) for i in range(n)]


def made(context: AnnotatedContext, mixture: Mixture | None = None, schema: Any = PLAIN, **kwargs: Any) -> RowGroup:
    [group] = make(context, mixture or Mixture(), schema, **kwargs)
    return group


def make(
    context: AnnotatedContext, mixture: Mixture, schema: Any = PLAIN, wording: Any = WORDING, none: str | None = NONE
) -> list[RowGroup]:
    return list(epoch_groups([context], schema, wording, none, mixture, demonstrations=Demonstrations(others())))


def listed(group: RowGroup) -> list[str]:
    """The labels as the system text lists them."""
    text = dict(group.turns)["system"]
    return text.split("allowed set: ")[1].split(" Do not")[0].split(", ")


def entities(question: str) -> tuple[str, str]:
    lines = question.splitlines()
    return lines[1].removeprefix("Entity 1: ").split(" (")[0], lines[2].removeprefix("Entity 2: ").split(" (")[0]


# Properties of every mixture


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_group_holds_its_answers_and_every_gold_pair(wordings: str, data: st.DataObject) -> None:
    context, mixture = data.draw(contexts()), data.draw(mixtures(wordings))
    groups = make(context, mixture, data.draw(st.sampled_from([SCHEMA, PLAIN])))
    gold = [(p.head, p.tail) for p in context.pairs for _ in p.labels]
    for group in groups:
        assert RowGroup.from_dict(json.loads(json.dumps(group.to_dict()))) == group
        assert len(set(group.labels)) == len(group.labels)
        system = dict(group.turns)["system"]
        for _, answer in group.rows:
            assert answer in group.labels
            assert "allowed set" not in system or answer in system
        positives = [entities(question) for question, answer in group.rows if answer != group.labels[-1]]
        assert positives == gold
        shown = [content for role, content in group.turns if role == "assistant"]
        assert set(shown) <= set(group.labels)
        assert not any(context.text in content for role, content in group.turns if role == "user")
        assert all(("(T" in question) == ("(T" in group.rows[0][0]) for question, _ in group.rows)
    if gold:
        assert len(groups) == mixture.groups


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_draws_depend_on_the_text_alone(wordings: str, data: st.DataObject) -> None:
    mixture = data.draw(mixtures(wordings))
    first, second = data.draw(contexts()), data.draw(contexts("Another m0 text with m1 , m2 and m3 ."))
    pool = Demonstrations(others())
    random.seed(data.draw(st.integers(0, 9)))

    def run(*texts: AnnotatedContext, epoch: int = 0) -> list[RowGroup]:
        return list(epoch_groups(texts, SCHEMA, WORDING, NONE, mixture, epoch, pool))

    both = run(first, second)
    assert both == run(first) + run(second)
    assert both == run(first, second)


def test_epochs_and_seeds_draw_anew() -> None:
    context = AnnotatedContext("m0 m1 m2 m3", tuple(pair(i, j) for i in range(4) for j in range(4) if i != j))

    def drawn(seed: int, epoch: int) -> list[RowGroup]:
        return list(epoch_groups([context], PLAIN, WORDING, NONE, Mixture(negatives_alone=3, seed=seed), epoch))

    assert len({str(drawn(seed, epoch)) for seed in range(4) for epoch in range(4)}) > 8
    assert rng_for(Mixture(), 0, "x").random() == rng_for(Mixture(), 0, "x").random()


@settings(max_examples=80, deadline=None)
@given(data=st.data(), n=st.integers(2, 4))
def test_texts_that_share_a_group_lose_no_row_and_share_all_before_the_question(
    wordings: str, data: st.DataObject, n: int
) -> None:
    mixture = replace(data.draw(mixtures(wordings)), texts=n, groups=1, negatives=None, negatives_alone=None, types=0)
    texts = [replace(data.draw(contexts()), text=f"Text {i} with m0 , m1 , m2 and m3 .") for i in range(5)]
    groups = list(epoch_groups(texts, SCHEMA, WORDING, NONE, mixture, 0, Demonstrations([*others(), *texts])))
    alone = list(epoch_groups(texts, SCHEMA, WORDING, NONE, replace(mixture, texts=1), 0, Demonstrations(others())))
    assert len(groups) <= math.ceil(5 / n)
    questions = sorted(question for group in groups for question, _ in group.rows)
    assert questions == sorted(question for group in alone for question, _ in group.rows)
    for group in groups:
        asked = {question.splitlines()[0] for question, _ in group.rows}
        assert not any(content.splitlines()[0] in asked for role, content in group.turns if role == "user")
        assert all(answer in group.labels for _, answer in group.rows)


def test_texts_meet_others_in_each_epoch() -> None:
    def meetings(epoch: int) -> set[frozenset[str]]:
        groups = epoch_groups(others(), PLAIN, WORDING, NONE, Mixture(texts=2), epoch)
        return {frozenset(question.splitlines()[0] for question, _ in group.rows) for group in groups}

    assert len(set().union(*map(meetings, range(8)))) > 3


# Which pairs


@settings(max_examples=80, deadline=None)
@given(context=contexts(), n=st.integers(0, 3), alone=st.integers(0, 3), both=st.booleans())
def test_the_negatives_are_as_many_as_set(context: AnnotatedContext, n: int, alone: int, both: bool) -> None:
    groups = make(context, Mixture(negatives=n, negatives_alone=alone, both_orders=both))
    n_positive = sum(bool(p.labels) for p in context.pairs)
    empty = {(p.head, p.tail) for p in context.pairs if not p.labels}
    kept = {(p.head, p.tail) for p in context.pairs if p.stated}
    if both:
        kept |= {(p.tail, p.head) for p in context.pairs if p.labels} & empty
    wanted = max(len(kept), min(len(empty), n * n_positive if n_positive else alone))
    found = [entities(question) for group in groups for question, answer in group.rows if answer == NONE]
    assert len(found) == len(set(found)) == wanted
    assert kept <= set(found) <= empty


def test_null_keeps_all_negatives() -> None:
    pairs = tuple(pair(i, j, ("a",) if (i, j) == (0, 1) else ()) for i in range(4) for j in range(4) if i != j)
    assert len(made(AnnotatedContext("x", pairs), Mixture(negatives=None))) == 12
    assert len(made(AnnotatedContext("x", pairs[1:]), Mixture(negatives_alone=None))) == 11


def test_a_rate_of_negatives() -> None:
    pairs = tuple(pair(i, j, ("a",) if (i, j) == (0, 1) else ()) for i in range(4) for j in range(4) if i != j)
    mixture = Mixture(negatives=0.5, both_orders=False, groups=200)
    counts = [len(group) - 1 for group in make(AnnotatedContext("x", pairs), mixture)]
    assert set(counts) == {0, 1}
    assert 60 < sum(counts) < 140


def test_without_a_negative_label_only_relations_become_rows() -> None:
    context = AnnotatedContext("x", (pair(0, 1, ("a",)), pair(1, 0), pair(0, 2, stated=True)))
    group = made(context, none=None)
    assert [answer for _, answer in group.rows] == ["a"]
    assert group.labels == NAMES
    assert listed(group) == list(NAMES)
    assert make(AnnotatedContext("x", (pair(0, 1),)), Mixture(), none=None) == []


def test_several_labels_are_a_row_each() -> None:
    group = made(AnnotatedContext("x", (pair(0, 1, ("b", "a")),)))
    assert [answer for _, answer in group.rows] == ["b", "a"]
    assert len({question for question, _ in group.rows}) == 1


def test_what_reads_like_a_relation_is_no_negative() -> None:
    apples = (AnnotatedPair("Apple", "Jobs", labels=("a",)), AnnotatedPair("Apple", "Jobs"))
    context = AnnotatedContext("Apple, which Jobs left, is Apple.", apples)
    assert [answer for _, answer in made(context, Mixture(negatives=None)).rows] == ["a"]
    stated = AnnotatedContext(context.text, (apples[0], replace(apples[1], stated=True)))
    assert [answer for _, answer in made(stated, Mixture(negatives=0)).rows] == ["a", NONE]


def test_what_another_annotation_of_the_text_says_is_no_negative() -> None:
    """SciERC has a row a relation, so a sentence with two has each one's other order unlabelled."""
    first = AnnotatedContext("m0 or  m1", (pair(0, 1, ("a",)), pair(1, 0)))
    second = AnnotatedContext("m0 or m1", (pair(1, 0, ("b",)), pair(0, 1)))
    third = AnnotatedContext("m0 or m1", (pair(0, 1, stated=True), pair(0, 2)))
    other = AnnotatedContext("m1 or m0", (pair(1, 0), pair(0, 1)))
    assert settled([first, second, third, other]) == [
        AnnotatedContext("m0 or  m1", first.pairs[:1]),
        AnnotatedContext("m0 or m1", second.pairs[:1]),
        third,
        other,
    ]
    assert settled([AnnotatedContext("x", (pair(0, 1),)), AnnotatedContext("x", (pair(0, 1, ("a",)),))]) == [
        AnnotatedContext("x", (pair(0, 1, ("a",)),))
    ]


# The list of labels


@settings(max_examples=80, deadline=None)
@given(context=contexts(), low=st.integers(1, 5), more=st.integers(0, 3), seed=st.integers(0, 20))
def test_lists_are_as_long_as_set_and_sorted(context: AnnotatedContext, low: int, more: int, seed: int) -> None:
    gold = {label for p in context.pairs for label in p.labels}
    for group in make(context, Mixture(min_labels=low, max_labels=low + more, seed=seed)):
        shown = listed(group)
        assert shown == sorted(shown)
        assert gold <= set(shown)
        assert NONE in shown
        assert max(min(low, 5), len(gold)) <= len(shown) - 1 <= max(low + more, len(gold))
        assert sorted(group.labels) == shown


def test_lists_vary() -> None:
    groups = make(AnnotatedContext("x", (pair(0, 1, ("c",)),)), Mixture(min_labels=1, max_labels=5, groups=60))
    assert {len(group.labels) for group in groups} == {2, 3, 4, 5, 6}
    assert len({group.labels for group in groups}) > 10


def test_shuffled_lists_have_the_same_entries() -> None:
    mixture = Mixture(shuffle_labels=1.0, groups=20)
    groups = make(AnnotatedContext("x", (pair(0, 1, ("c",)),)), mixture, SCHEMA)
    plain = made(AnnotatedContext("x", (pair(0, 1, ("c",)),)), schema=SCHEMA)
    assert listed(plain)[0] == "a (what a means)"
    assert all(sorted(listed(group)) == listed(plain) for group in groups)
    assert len({tuple(listed(group)) for group in groups}) > 10
    assert {group.labels for group in groups} == {plain.labels}


def test_paraphrases_name_a_label_everywhere_in_a_group(wordings: str) -> None:
    mixture = Mixture(paraphrases=1.0, wordings=wordings, examples=(2,), groups=40)
    seen = set()
    for group in make(AnnotatedContext("x", (pair(0, 1, ("a",)), pair(1, 0))), mixture):
        (_, first), (_, second) = group.rows
        assert first in ("A one", "A two", "same")
        assert second == "nothing"
        assert listed(group) == sorted(group.labels)
        assert "a" not in group.labels
        assert NONE not in group.labels
        assert "same" in group.labels
        assert ("b" in group.labels) == (first == "same")
        shown = [content for role, content in group.turns if role == "assistant"]
        assert set(shown) <= set(group.labels)
        seen.add(first)
    assert len(seen) > 1


def test_definitions(wordings: str) -> None:
    context = AnnotatedContext("x", (pair(0, 1, ("a",)),))
    never = made(context, Mixture(definitions=0.0), SCHEMA)
    assert listed(never) == [*NAMES, NONE]
    groups = make(context, Mixture(definitions=1.0, wordings=wordings, groups=40), SCHEMA)
    assert {listed(group)[0] for group in groups} == {"a (what a means)", "a (a is first)", "a (a leads)"}
    assert {listed(group)[1] for group in groups} == {"b (what b means)"}
    assert made(context, schema=SCHEMA).turns == make(context, Mixture(definitions=1.0), SCHEMA)[0].turns


def test_the_generic_text_lists_nothing_and_names_are_the_labels_own(wordings: str) -> None:
    mixture = Mixture(generic=1.0, paraphrases=1.0, wordings=wordings, max_labels=1, shuffle_labels=1.0)
    group = made(AnnotatedContext("x", (pair(0, 1, ("a",)),)), mixture)
    assert group.turns == (("system", make_gentune_prompt(system="generic").system),)
    assert group.labels == (*NAMES, NONE)
    assert group.rows[0][1] == "a"


def test_a_negative_with_a_prompt_text_of_its_own(wordings: str) -> None:
    schema = parse_labels({"a": {"prompt": "is a"}, "Other": {"prompt": "none of these"}}, no_relation="Other")
    context = AnnotatedContext("x", (pair(0, 1, ("a",)), pair(1, 0)))
    group = made(context, schema=schema, none="none of these")
    assert group.labels == ("is a", "none of these")
    assert [answer for _, answer in group.rows] == ["is a", "none of these"]
    assert listed(group) == ["is a", "none of these"]


# Types and demonstrations


def test_types_are_shown_in_questions_and_demonstrations() -> None:
    mixture = Mixture(types=1.0, typed_user=TYPED, examples=(2,))
    group = made(AnnotatedContext("x", (pair(0, 1, ("a",)),)), mixture)
    assert group.rows[0][0] == "Sentence: x\nEntity 1: m0 (T0)\nEntity 2: m1 (T1)\nRelation:"
    assert [content.count("(T") for role, content in group.turns if role == "user"] == [2, 2]
    assert "(T" not in str(made(AnnotatedContext("x", (pair(0, 1, ("a",)),))))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 5),
    texts=st.lists(contexts(), max_size=5),
    seed=st.integers(0, 99),
    none=st.sampled_from([NONE, None]),
)
def test_demonstrations_are_of_other_texts(n: int, texts: list[AnnotatedContext], seed: int, none: str | None) -> None:
    pool = [replace(context, text=f"{context.text} {i % 3}") for i, context in enumerate(texts)]
    labels = ("a", "b")
    drawn = Demonstrations(pool).draw(n, [pool[0].text if pool else "x"], labels, none, random.Random(seed))
    shown = [example.text for example in drawn]
    assert len(drawn) <= n
    assert len(set(shown)) == len(shown)
    assert not pool or clean(pool[0].text) not in shown
    assert all(example.label in (*labels, none) for example in drawn)
    others = [context for context in pool if context.text != pool[0].text]
    if n and any(set(labels) & set(p.labels) for context in others for p in context.pairs):
        assert any(example.label in labels for example in drawn)
    known = {(c.text, p.head, p.tail, label) for c in pool for p in c.pairs for label in p.labels or (NONE,)}
    assert {(e.text, e.head, e.tail, e.label) for e in drawn} <= known


def test_two_demonstrations_are_one_of_each_kind() -> None:
    mixture = Mixture(examples=(0, 2), groups=60)
    groups = make(AnnotatedContext("x", (pair(0, 1, ("a",)),)), mixture)
    answers = [[content for role, content in group.turns if role == "assistant"] for group in groups]
    assert {len(shown) for shown in answers} == {0, 2}
    assert all(shown.count(NONE) == 1 for shown in answers if shown)
    assert {shown.index(NONE) for shown in answers if shown} == {0, 1}
    assert {label for shown in answers for label in shown} == {*NAMES, NONE}


def test_the_prompts_own_examples_stay_and_are_listed(wordings: str) -> None:
    schema = parse_labels({"a": {"prompt": "is a"}, "b": None, "c": None})
    shots = [{"text": "m5 m6", "head": "m5", "tail": "m6", "label": label} for label in ("is a", NONE)]
    wording = make_gentune_prompt(examples=shots)
    context = AnnotatedContext("x", (pair(0, 1, ("b",)),))
    plain = made(context, schema=schema, wording=wording)
    assert plain.turns[1:] == tuple((turn["role"], turn["content"]) for turn in wording.messages(schema, NONE)[1:])
    group = made(context, Mixture(max_labels=1, paraphrases=1.0, wordings=wordings), schema, wording=wording)
    assert [content for role, content in group.turns if role == "assistant"] == [group.labels[0], "nothing"]
    assert group.labels[0] in ("A one", "A two", "same")
    assert len(group.labels) == 3


def test_typed_examples_survive_saving() -> None:
    shot = {"text": "m5 m6", "head": "m5", "tail": "m6", "label": "a", "head_type": "X", "tail_type": "Y"}
    wording = make_gentune_prompt(user=TYPED, examples=[shot])
    assert wording.examples == (Example(**shot),)
    assert type(wording).from_dict(wording.to_dict()) == wording
    assert "Entity 1: m5 (X)" in wording.messages(PLAIN, NONE)[1]["content"]


# Errors


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("negatives", -1, "negatives is -1. Expected a number of at least 0, or null for all"),
        ("negatives", True, "negatives is True"),
        ("negatives", float("nan"), "negatives is nan"),
        ("negatives_alone", 1.5, "negatives_alone is 1.5. Expected a whole number of at least 0, or null for all"),
        ("both_orders", 1, "both_orders is 1. Expected true or false"),
        ("min_labels", 0, "min_labels is 0. Expected a whole number of at least 1, or null"),
        ("max_labels", "5", "max_labels is '5'"),
        ("shuffle_labels", 2, "shuffle_labels is 2. Expected a probability, 0..1"),
        ("shuffle_labels", None, "shuffle_labels is None. Expected a probability"),
        ("definitions", "x", "definitions is 'x'. Expected a probability, 0..1, or null"),
        ("examples", 2, r"examples is 2. Expected a list of numbers .* such as \[0, 2\]"),
        ("examples", [], r"examples is \[\]"),
        ("examples", [-1], r"examples is \[-1\]"),
        ("types", 0.5, "types is 0.5. Expected 0 where no typed_user is set; set mixture.typed_user"),
        ("typed_user", "{sentence} {head} {tail}", r"typed_user lacks \{head_type\} or \{tail_type\}"),
        ("typed_user", "{sentence} {head}", r"mixture.typed_user lacks \{sentence\}, \{head\} or \{tail\}"),
        ("typed_user", 3, "typed_user is 3. Expected a string, or null"),
        ("paraphrases", 0.5, "paraphrases is 0.5. Expected 0 where no wordings are set; set mixture.wordings"),
        ("wordings", "", "wordings is ''. Expected a string, or null"),
        ("groups", 0, "groups is 0. Expected a whole number of at least 1"),
        ("seed", None, "seed is None. Expected a whole number"),
    ],
)
def test_settings_that_cannot_be_used(setting: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_mixture(**{setting: value})


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match=r"min_labels is 5. Expected at most max_labels, 3"):
        Mixture(min_labels=5, max_labels=3)
    with pytest.raises(ConfigError, match=r"no setting 'negativs'. Did you mean 'negatives'\?"):
        mixture_from({"negativs": 1})
    with pytest.raises(ConfigError, match=r"examples is \[2\], and there is nothing to draw demonstrations from"):
        rows(others()[:1], PLAIN, WORDING, NONE, Mixture(examples=(2,)), random.Random(0))


def test_settings_from_a_config_and_back() -> None:
    text = '[mixture]\n@misc = "spacy-relx.Mixture.v1"\nexamples = [0,2]\nnegatives = 3\ntypes = 0.5\n'
    text += f"typed_user = {json.dumps(TYPED)}\n"
    mixture = registry.resolve(Config().from_str(text))["mixture"]
    assert mixture == Mixture(examples=(0, 2), negatives=3, types=0.5, typed_user=TYPED)
    assert mixture_from(json.loads(json.dumps(mixture.to_dict()))) == mixture


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "are not JSON"),
        ("[]", 'have no mapping "labels"'),
        ('{"labels": {"a": ["x"]}}', r"a is \['x'\]. Expected a mapping with paraphrases, definitions or both"),
        ('{"labels": {"a": {"names": []}}}', "a is .* Expected a mapping with paraphrases"),
        ('{"labels": {"a": {"paraphrases": "x"}}}', "a.paraphrases is 'x'. Expected a list of strings"),
        ('{"labels": {"a": {"paraphrases": [" x"]}}}', r"a.paraphrases\[0\] is ' x'. Expected no outer white space"),
    ],
)
def test_wordings_that_cannot_be_used(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "words.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_wordings(str(path))


def test_wordings_that_are_nowhere() -> None:
    mixture = Mixture(paraphrases=0.5, wordings="nowhere.json")  # a saved pipeline may name a file of another machine
    with pytest.raises(ConfigError, match=r"wordings is 'nowhere.json'. Expected the name of a packaged file"):
        made(AnnotatedContext("x", (pair(0, 1, ("a",)),)), mixture)
    with pytest.raises(ConfigError, match=r"typed_user is 'nowhere.txt'. Expected a user turn, or the path"):
        made(AnnotatedContext("x", (pair(0, 1, ("a",)),)), Mixture(types=1.0, typed_user="nowhere.txt"))


@pytest.mark.parametrize("name", packaged_wordings())
def test_packaged_wordings_can_be_read(name: str) -> None:
    assert read_wordings(name)


def test_labels_that_do_not_fit() -> None:
    with pytest.raises(DataError, match=r"\('m0', 'm1'\) holds 'zzz', which is no label of the schema 'custom'.*a, b"):
        made(AnnotatedContext("x", (AnnotatedPair("m0", "m1", labels=("zzz",)),)))
    with pytest.raises(DataError, match=r"holds 'a', which its entity types do not allow. Expected one of b, c"):
        AnnotatedPair("m0", "m1", labels=("a",), allowed=("b", "c"))
    with pytest.raises(DataError, match="Expected each label once"):
        AnnotatedPair("m0", "m1", labels=("a", "a"))
    with pytest.raises(DataError, match="is stated to hold nothing"):
        AnnotatedPair("m0", "m1", labels=("a",), stated=True)


# From Docs


def annotated(
    relations: list[tuple[str, str, str]], *, component: dict[str, Any] | None = None, text: str = TEXT
) -> tuple[Any, Doc]:
    """The component of a pipeline, and a Doc with entities and relations between the first mentions of texts."""
    nlp = pipeline(**(component or {}))
    with nlp.select_pipes(disable=FACTORY):
        doc = nlp(text)
    first: dict[str, Span] = {}
    for ent in doc.ents:
        first.setdefault(ent.text, ent)
    doc._.relations = [(first[head], label, first[tail]) for head, label, tail in relations]
    return nlp.get_pipe(FACTORY), doc


def held(contexts: list[AnnotatedContext]) -> dict[tuple[str, str], tuple[str, ...]]:
    return {(p.head, p.tail): p.labels for context in contexts for p in context.pairs if p.labels}


def test_contexts_are_the_components_own() -> None:
    component, doc = annotated([("Apple", "founded_by", "Steve Jobs")], component={"no_relation": NONE})
    found = list(contexts_of(component, doc))
    assert [context.text for context in found] == [sent.text for sent in doc.sents]
    shown = [(p.head, p.tail, p.head_type, p.tail_type) for context in found for p in context.pairs]
    expected = component.candidate_pairs(doc)
    assert shown == [(head.text, tail.text, head.label_, tail.label_) for head, tail in expected]
    assert held(found) == {("Apple", "Steve Jobs"): ("founded_by",)}
    assert found[0].pairs[0].allowed == ("works_for", "member_of")


@pytest.mark.parametrize("name", ["schema", "generic"])
def test_default_rows_are_what_inference_asks(smollm2_tokenizer: Any, name: str) -> None:
    """Token for token, over every pair and with the prompt's own examples."""
    shots = [{"text": "Ada Lovelace joined Apple.", "head": "Ada Lovelace", "tail": "Apple", "label": "works_for"}]
    prompt = {
        "@misc": "spacy-relx.GenTunePrompt.v1",
        "system": name,
        "examples": shots,
        "user": TYPED,
        "cue": "Answer:",
    }
    labels = {**LABELS, "works_for": {**LABELS["works_for"], "description": "is employed", "prompt": "works for"}}
    component, doc = annotated([], component={"prompt": prompt, "no_relation": NONE, "labels": labels})
    nlp = pipeline(prompt=prompt, no_relation=NONE, labels=labels)
    scripted(nlp, ScriptedEngine(smollm2_tokenizer, {}))
    asked = [question.prompt.ids for question in nlp.get_pipe(FACTORY)._prepare(doc).questions]
    known = component.settings
    groups = list(
        epoch_groups(
            list(contexts_of(component, doc)),
            component.schema,
            known.prompt,
            known.negative_prompt,
            Mixture(negatives_alone=None),
        )
    )
    assert len(groups) == 2
    trained = []
    for group in groups:
        turns = [{"role": role, "content": content} for role, content in group.turns]
        chat = ChatTemplate(smollm2_tokenizer, turns, known.prompt.template_kwargs or {})
        trained += [chat.prompt(question).ids for question, _ in group.rows]
        assert group.labels == (*(label.prompt for label in component.schema), known.negative_prompt)
    assert trained == asked


def test_symmetric_labels_hold_in_both_orders() -> None:
    labels = {"partner_of": {"head": ["PERSON"], "tail": ["ORG"], "symmetric": True}}
    component, doc = annotated([("Steve Jobs", "partner_of", "Apple")], component={"labels": labels})
    assert held(list(contexts_of(component, doc))) == {
        ("Steve Jobs", "Apple"): ("partner_of",),
        ("Apple", "Steve Jobs"): ("partner_of",),
    }


@pytest.mark.parametrize("stored", ["founded_by", "founder_of"])
@pytest.mark.parametrize("both", [False, True], ids=["name only", "label"])
def test_inverse_labels(stored: str, both: bool) -> None:
    labels: dict[str, Any] = {"founded_by": {"inverse": "founder_of"}, **({"founder_of": None} if both else {})}
    pair = ("Apple", stored, "Steve Jobs") if stored == "founded_by" else ("Steve Jobs", stored, "Apple")
    component, doc = annotated([pair], component={"labels": labels, "no_relation": NONE})
    expected = {("Apple", "Steve Jobs"): ("founded_by",)}
    if both:
        expected["Steve Jobs", "Apple"] = ("founder_of",)
    assert held(list(contexts_of(component, doc))) == expected


def test_forms_agree_with_what_is_stored() -> None:
    schema = parse_labels(
        {"a": {"inverse": "b"}, "b": {"inverse": "a"}, "c": {"symmetric": True}, "d": {"inverse": "x"}}
    )
    for label in ("a", "b", "c", "d", "x"):
        for name, head, tail in forms(schema, label, 1, 2):
            told, back = schema.canonical(name, head, tail), schema.canonical(label, 1, 2)
            assert told == back or (label == "c" and told == ("c", 2, 1))
    assert forms(schema, "x", 1, 2) == (("d", 2, 1),)
    assert forms(schema, "zzz", 1, 2) == ()


def test_annotated_negatives_are_stated() -> None:
    relations = [("Steve Jobs", "Other", "Apple"), ("Apple", "headquartered_in", "Cupertino")]
    component, doc = annotated(relations, component={"no_relation": NONE})
    found = list(contexts_of(component, doc))
    assert [(p.head, p.tail) for context in found for p in context.pairs if p.stated] == [("Steve Jobs", "Apple")]
    group = made(found[0], Mixture(negatives=0), component.schema)
    assert [(entities(q), answer) for q, answer in group.rows] == [
        (("Steve Jobs", "Apple"), NONE),
        (("Apple", "Cupertino"), "headquartered_in"),
    ]


def test_relations_that_nobody_asks_about_are_counted() -> None:
    relations = [
        ("Ada Lovelace", "founded_by", "Apple"),  # the pair is asked about, but not with this label; in sentence 2
        ("Cupertino", "headquartered_in", "Apple"),
        ("Ada Lovelace", "works_for", "Steve Jobs"),
        ("Steve Jobs", "works_for", "Apple"),
        ("Ada Lovelace", "NA", "Cupertino"),
    ]
    component, doc = annotated(relations)
    first = {ent.text: ent for ent in reversed(doc.ents)}
    last = {ent.text: ent for ent in doc.ents}
    doc._.relations = [
        (first["Steve Jobs"], "founded_by", first["Apple"]),
        (first["Cupertino"], "headquartered_in", first["Apple"]),
        (first["Steve Jobs"], "works_for", last["Apple"]),
        (last["Ada Lovelace"], "works_for", last["Apple"]),
        (last["Ada Lovelace"], "NA", first["Cupertino"]),
    ]
    skipped = Skipped()
    found = list(read_contexts(component, [doc], skipped))
    assert skipped.reasons == {LABEL_TYPES: 1, TYPES: 1, NO_CANDIDATE: 1, NEGATIVE: 1}
    assert len(skipped) == 4
    assert skipped.first[LABEL_TYPES] == "number 0: ('Steve Jobs' 0..2, founded_by, 'Apple' 5..6)"
    assert "1 skipped: the label is not allowed between the entity types. First: number 0" in str(skipped)
    assert held(found) == {("Ada Lovelace", "Apple"): ("works_for",)}
    # A pair that holds what its types forbid is no negative.
    assert ("Steve Jobs", "Apple") not in {(p.head, p.tail) for p in found[0].pairs}


def test_a_relation_outside_the_mentions() -> None:
    component, doc = annotated([])
    doc._.relations = [(Span(doc, 2, 5), "works_for", doc.ents[1])]
    message = (
        r"The Doc number 0 has the relation \('co-founded' 2..5, works_for, 'Apple' 5..6\), whose head 'co-founded' "
        r"\(tokens 2..5\) is not an entity of the Doc"
    )
    with pytest.raises(DataError, match=message):
        list(read_contexts(component, [doc]))
    candidates = {"@misc": "spacy-relx.EntityPairs.v1", "spans_key": "gold"}
    component, _ = annotated([], component={"candidates": candidates})
    doc.spans["gold"] = [Span(doc, 2, 5, "PERSON"), Span(doc, 5, 6, "ORG")]
    assert held(list(contexts_of(component, doc))) == {("co-founded", "Apple"): ("works_for",)}
    doc.spans["gold"] = [Span(doc, 5, 6, "ORG")]
    with pytest.raises(DataError, match=r"is not in the span group 'gold'.*Add the mention to the span group"):
        list(contexts_of(component, doc))


def test_a_label_outside_the_schema() -> None:
    component, doc = annotated([("Steve Jobs", "works_fro", "Apple")])
    message = (
        r"works_fro, 'Apple' 5..6\), whose label is not in the schema 'custom'. Did you mean 'works_for'\?.*founded_by"
    )
    with pytest.raises(DataError, match=message):
        list(contexts_of(component, doc))


def test_overlapping_mentions_of_two_types() -> None:
    nlp = pipeline(candidates={"@misc": "spacy-relx.EntityPairs.v1", "spans_key": "gold"})
    doc = nlp.get_pipe("sentencizer")(nlp.make_doc("Steve Jobs left Apple"))
    person, org, place = Span(doc, 0, 2, "PERSON"), Span(doc, 3, 4, "ORG"), Span(doc, 3, 4, "GPE")
    doc.spans["gold"] = [person, org, place]
    doc._.relations = [(person, "works_for", org)]
    [context] = contexts_of(nlp.get_pipe(FACTORY), doc)
    assert [(p.head_type, p.tail_type, p.labels) for p in context.pairs] == [
        ("PERSON", "ORG", ("works_for",)),
        ("ORG", "PERSON", ()),
    ]


# Through a file, without spaCy


def test_rows_survive_a_file(tmp_path: Path, wordings: str) -> None:
    mixture = Mixture(examples=(2,), paraphrases=0.5, wordings=wordings, groups=3)
    groups = list(epoch_groups(others(), SCHEMA, WORDING, NONE, mixture))
    assert write_rows(tmp_path / "rows.jsonl", groups) == sum(map(len, groups))
    assert list(read_rows(tmp_path / "rows.jsonl")) == groups


def test_mixtures_need_neither_spacy_nor_torch() -> None:
    code = (
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('spacy', 'thinc', 'torch', 'transformers'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "import spacy_relx.training.groups, spacy_relx.training.mixture\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


def test_blank_pipelines_know_the_registered_name() -> None:
    assert spacy.registry.has("misc", "spacy-relx.Mixture.v1")
