"""Rows with thousands of label names: right answers in their lists, one reading each, nothing that is held out."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from random import Random
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import spacy
from spacy.tokens import Doc

from tests.script_loader import FOLDER, load_script

sys.path.insert(0, str(FOLDER))  # as where the script runs
script = load_script("varied_names")
sys.path.remove(str(FOLDER))

IN_WORDNET = script._in_wordnet
NEAR = {"join": (["fall in"], ["connect"], ["joiner"]), "singer": (["vocalist"], ["musician"], ["sing"])}


@pytest.fixture(autouse=True)
def small_wordnet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "_in_wordnet", lambda lemma, pos: NEAR.get(lemma, ([], [], [])))
    script._names_of.cache_clear()


def word(lemma: str, pos: str = "NOUN", **more: Any) -> Any:
    return script.Word(
        **{"between": True, "text": lemma, "preposition": "", "modifier": "", **more}, pos=pos, lemma=lemma
    )


def pairs() -> list[Any]:
    """Five pairs of each of eight relations that exclude each other, and a word of its own for each of them."""
    relations = ["spouse", "country", "capital", "sport", "genre", "religion", "crosses", "military rank"]
    return [
        script.Pair(
            f"Text {i} of {label}.", f"A{i}", f"B{i}", (label,), (word(f"{'abcdefgh'[at] * 3}{'klmno'[i] * 3}"),)
        )
        for at, label in enumerate(relations)
        for i in range(5)
    ]


def test_every_answer_is_listed_and_no_name_is_there_twice() -> None:
    lists = script._Lists(pairs(), Random(1))
    groups = [*script._filled(lists.of_names, 300), *script._filled(lists.of_words, 300)]
    assert any(script.NONE in group.labels for group in groups)
    assert any(script.NONE not in group.labels for group in groups)
    for group in groups:
        assert {answer for _, answer in group.rows} <= set(group.labels)
        assert len({label.casefold() for label in group.labels}) == len(group.labels)
        assert ", ".join(group.labels) in group.turns[0][1]


def test_a_listed_word_joins_no_pair_but_its_own() -> None:
    every = pairs()
    of_question = {pair.question: pair for pair in every}
    lists = script._Lists(every, Random(2))
    for group in script._filled(lists.of_words, 300):
        for question, answer in group.rows:
            own = {each.lemma for each in of_question[question].words}
            assert {label.lower() for label in group.labels} & own <= {answer.lower()}


def test_words_that_say_a_held_out_name_are_never_drawn() -> None:
    held_out = [word(lemma) for lemma in ("winner", "architect", "tributary", "occupation")]
    lists = script._Lists([*pairs(), script.Pair("Text.", "A", "B", ("spouse",), tuple(held_out))], Random(3))
    assert {lists._word([each]) for each in held_out} == {None}
    assert lists._word([*held_out, pairs()[0].words[0]]) in ("aaakkk", "aaakkk or aaakkk", None)
    assert all(script.HELD_OUT_WORDS.search(name) for name in ("nominated for", "taxon rank", "successful candidate"))


@dataclass(order=True)
class Sense:
    """What of NLTK's synsets is asked for."""

    own: str
    above: list[Sense] = field(default_factory=list)

    def lemmas(self) -> list[Any]:
        return [SimpleNamespace(name=lambda: self.own, derivationally_related_forms=list)]

    def hypernyms(self) -> list[Sense]:
        return self.above


@pytest.mark.parametrize("above", [["gather", "create"], ["create", "gather"]])
def test_hypernyms_come_in_one_order(monkeypatch: pytest.MonkeyPatch, above: list[str]) -> None:
    senses = [Sense("assemble", [Sense(name) for name in above])]
    wordnet = SimpleNamespace(synsets=lambda lemma, pos: senses)
    monkeypatch.setitem(sys.modules, "nltk", ModuleType("nltk"))
    monkeypatch.setitem(sys.modules, "nltk.corpus", SimpleNamespace(wordnet=wordnet))
    IN_WORDNET.cache_clear()
    assert IN_WORDNET("assemble", "VERB") == ([], ["create", "gather"], [])
    IN_WORDNET.cache_clear()


def test_names_of_a_word() -> None:
    names = script._names_of(word("singer", text="singers", modifier="lead"))
    assert names == {
        "lemma": ["singer", "lead singer"],
        "synonym": ["vocalist"],
        "hypernym": ["musician"],
        "derivation": ["sing"],
        "surface": ["lead singers"],
    }
    verb = script._names_of(word("join", "VERB", text="joined", preposition="with"))
    assert verb["surface"] == ["joined", "joined with"]
    assert verb["synonym"] == ["fall in", "fall in with"]


def test_joining_words_lie_on_the_path_of_the_parse() -> None:
    words = ["Ann", ",", "lead", "singer", "of", "Blur", ",", "joined", "Gorillaz", "."]
    doc = Doc(
        spacy.blank("en").vocab,
        words=words,
        heads=[7, 0, 3, 0, 3, 4, 0, 7, 7, 7],
        deps=["nsubj", "punct", "amod", "appos", "prep", "pobj", "punct", "ROOT", "dobj", "punct"],
        pos=["PROPN", "PUNCT", "ADJ", "NOUN", "ADP", "PROPN", "PUNCT", "VERB", "PROPN", "PUNCT"],
        lemmas=["Ann", ",", "lead", "singer", "of", "Blur", ",", "join", "Gorillaz", "."],
    )
    assert [(found.lemma, found.between) for found in script._joining(doc, "Ann", "Gorillaz")] == [
        ("join", True),
        ("singer", False),
    ]
    singer = next(iter(script._joining(doc, "Ann", "Blur")))
    assert (singer.text, singer.modifier, singer.preposition) == ("singer", "lead", "of")
    assert list(script._joining(doc, "Ann", "nobody")) == []
