"""The engine asks about nothing twice, and never takes the answer to another question."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_relx.engine import cached
from spacy_relx.engine.answer_store import AnswerStore
from spacy_relx.engine.cached import CachedEngine
from spacy_relx.engine.packed import PackedEngine
from spacy_relx.engine.reference import ReferenceEngine
from spacy_relx.engine.types import FreeAnswer, LabelIds, LabelScore, Prompt, Question, Ranking, Work

from .compare import assert_exact
from .conftest import TERMINAL, tiny_llama

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LABELS = LabelIds(((4,), (5, 6), (5, 4)), TERMINAL)
FINGERPRINT = "0" * 64


def asked(*numbers: int) -> list[Question]:
    return [Question(Prompt((0, 1, 2, 3, 1, i % 4, i // 4), 4), (0, 1, 2)) for i in numbers]


def identified() -> Any:
    """A tiny model with what a loaded one has besides."""
    loaded = tiny_llama()
    loaded.fingerprint, loaded.base_folder = FINGERPRINT, None
    return loaded


@pytest.fixture(scope="module")
def loaded() -> Any:
    return identified()


class Memory(dict[bytes, bytes]):
    """A store in memory."""

    is_usable = True

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:  # type: ignore[override]
        return {key: self[key] for key in keys if key in self}

    def put(self, values: dict[bytes, bytes]) -> None:
        self.update(values)


class Counting:
    """An engine that counts what it is asked, and answers with what it is given."""

    def __init__(
        self, *, fingerprint: str = FINGERPRINT, device: str = "cpu", folder: Path | None = None, **config: Any
    ) -> None:
        model = SimpleNamespace(config=SimpleNamespace(to_dict=lambda: config))
        self.loaded = SimpleNamespace(fingerprint=fingerprint, model=model, base_folder=folder)
        self.device = SimpleNamespace(type=device)
        self.max_pack_tokens = 1
        self.work = Work()
        self.n_weight_changes = 0
        self.n_asked = 0
        self.answer: Any = Ranking((LabelScore(0, -0.1),))

    def rank(self, questions: Sequence[Question], labels: LabelIds, **settings: Any) -> list[Any]:
        self.n_asked += len(questions)
        return [self.answer for _ in questions]

    def decode(self, prompts: Sequence[Prompt], **settings: Any) -> list[Any]:
        self.n_asked += len(prompts)
        return [self.answer for _ in prompts]


class OtherCounting(Counting):
    pass


# With a model.


@pytest.mark.parametrize("kind", [PackedEngine, ReferenceEngine])
@pytest.mark.parametrize("scoring", ["trie", "sequence"])
def test_a_second_run_computes_nothing(loaded: Any, tmp_path: Path, kind: Any, scoring: Any) -> None:
    questions = asked(*range(8))
    first = CachedEngine(kind(loaded), AnswerStore(tmp_path, 2**20))
    answers = first.rank(questions, LABELS, top_k=2, scoring=scoring)
    assert answers == kind(loaded).rank(questions, LABELS, top_k=2, scoring=scoring)
    assert first.work.n_cached == 0
    assert first.work.n_prompts == 8
    second = CachedEngine(kind(loaded), AnswerStore(tmp_path, 2**20))
    assert second.rank(questions, LABELS, top_k=2, scoring=scoring) == answers
    assert (second.work.n_cached, second.work.n_prompts, second.work.n_forward) == (8, 0, 0)


@pytest.mark.parametrize("kind", [PackedEngine, ReferenceEngine])
def test_a_second_free_answer_is_not_decoded(loaded: Any, tmp_path: Path, kind: Any) -> None:
    prompts = [question.prompt for question in asked(*range(5))]
    settings: dict[str, Any] = {"stop_ids": frozenset({TERMINAL, 3}), "max_new_tokens": 6}
    answers = CachedEngine(kind(loaded), AnswerStore(tmp_path, 2**20)).decode(prompts, **settings)
    assert answers == kind(loaded).decode(prompts, **settings)
    engine = CachedEngine(kind(loaded), AnswerStore(tmp_path, 2**20))
    assert engine.decode(prompts, **settings) == answers
    assert engine.work.n_forward == 0


def test_only_new_questions_are_asked(loaded: Any, tmp_path: Path) -> None:
    engine = CachedEngine(PackedEngine(loaded), AnswerStore(tmp_path, 2**20))
    before = engine.rank(asked(1, 3, 5), LABELS, top_k=3)
    both = engine.rank(asked(*range(7), 3), LABELS, top_k=3)
    assert [both[1], both[3], both[5], both[7]] == [*before, before[1]]
    assert engine.work.n_prompts == 3 + 4
    assert engine.work.n_cached == 4
    oracle = ReferenceEngine(loaded).rank(asked(*range(7), 3), LABELS, top_k=3)
    assert_exact(asked(*range(7), 3), both, oracle, 3)


def test_no_questions_are_no_answers(loaded: Any, tmp_path: Path) -> None:
    engine = CachedEngine(PackedEngine(loaded), AnswerStore(tmp_path, 2**20))
    assert engine.rank([], LABELS) == []
    assert engine.decode([], stop_ids=frozenset()) == []


# Keys.

ids = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple)
sequences = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=2).map(tuple), min_size=1, max_size=3, unique=True
)


@st.composite
def rankings_asked(draw: st.DrawFn) -> tuple[Any, ...]:
    labels = LabelIds(tuple(draw(sequences)), draw(st.integers(8, 9)))
    positions = st.integers(0, len(labels) - 1)
    allowed = tuple(draw(st.lists(positions, min_size=1, max_size=len(labels), unique=True)))
    return (
        draw(ids),
        allowed,
        labels,
        draw(st.integers(1, 2)),
        draw(st.sampled_from(["trie", "sequence"])),
        draw(st.sampled_from([1e-4, 1e-5])),
    )


def ask(engine: CachedEngine, question: tuple[Any, ...]) -> None:
    prompt, allowed, labels, top_k, scoring, tolerance = question
    engine.rank([Question(Prompt(prompt), allowed)], labels, top_k=top_k, scoring=scoring, tolerance=tolerance)


@settings(deadline=None)
@given(rankings_asked(), st.data())
def test_any_change_of_a_question_makes_another(question: tuple[Any, ...], data: st.DataObject) -> None:
    """One part changed, or all of them."""
    other = data.draw(rankings_asked())
    changed = [other] if other[2] == question[2] else [(*other[:1], *other[1:])]
    for place in (0, 3, 4, 5):
        changed.append((*question[:place], other[place], *question[place + 1 :]))
    changed.append((question[0], other[1], other[2], *question[3:]))
    labels = LabelIds(question[2].sequences, 17 - question[2].terminal)
    changed.append((*question[:2], labels, *question[3:]))
    for second in changed:
        engine = Counting()
        cache = CachedEngine(engine, Memory())  # type: ignore[arg-type]
        ask(cache, question)
        ask(cache, second)
        ask(cache, question)
        assert engine.n_asked == (1 if second == question else 2)


decodings = st.tuples(ids, st.frozensets(st.integers(0, 2), max_size=2), st.integers(1, 2))


@settings(deadline=None)
@given(decodings, decodings)
def test_any_change_of_a_free_question_makes_another(first: tuple[Any, ...], second: tuple[Any, ...]) -> None:
    engine = Counting()
    engine.answer = FreeAnswer((1,), -0.5, True)
    cache = CachedEngine(engine, Memory())  # type: ignore[arg-type]
    for prompt, stop_ids, n_tokens in (first, second, first):
        cache.decode([Prompt(prompt)], stop_ids=stop_ids, max_new_tokens=n_tokens)
    assert engine.n_asked == (1 if first == second else 2)


def test_what_is_kept_of_a_shared_run_makes_no_other_question() -> None:
    engine = Counting()
    cache = CachedEngine(engine, Memory())  # type: ignore[arg-type]
    for n_shared in (0, 2):
        cache.rank([Question(Prompt((1, 2, 3), n_shared), (0,))], LABELS)
    assert engine.n_asked == 1


def test_whatever_computes_is_part_of_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    store: Any = Memory()
    engines = [
        Counting(),
        Counting(fingerprint="1" * 64),
        Counting(device="cuda"),
        Counting(rope_theta=1e6),
        Counting(rope_theta=1e5),
        OtherCounting(),
    ]
    for _ in range(2):
        for engine in engines:
            CachedEngine(engine, store).rank(asked(1), LABELS)  # type: ignore[arg-type]
    assert [engine.n_asked for engine in engines] == [1] * len(engines)
    CachedEngine(Counting(_name_or_path="elsewhere"), store).rank(asked(1), LABELS)  # type: ignore[arg-type]
    assert len(store) == len(engines)
    monkeypatch.setattr(cached, "version", lambda name: "another")
    CachedEngine(engines[0], store).rank(asked(1), LABELS)  # type: ignore[arg-type]
    assert engines[0].n_asked == 2


def test_an_edited_file_of_weights_is_another(tmp_path: Path) -> None:
    file, store = tmp_path / "model.safetensors", Memory()
    for content, time in ((b"one", 1), (b"one", 1), (b"two", 2), (b"three", 2)):
        file.write_bytes(content)
        os.utime(file, (time, time))
        CachedEngine(Counting(folder=tmp_path), store).rank(asked(1), LABELS)  # type: ignore[arg-type]
    assert len(store) == 3


def test_weights_that_were_changed_have_no_answers_here() -> None:
    engine, store = Counting(), Memory()
    cache = CachedEngine(engine, store)  # type: ignore[arg-type]
    cache.rank(asked(1), LABELS)
    engine.n_weight_changes += 1
    cache.rank(asked(1, 2), LABELS)
    assert engine.n_asked == 3
    assert len(store) == 1


def test_weights_that_change_while_an_answer_is_computed() -> None:
    class Changing(Counting):
        def rank(self, questions: Sequence[Question], labels: LabelIds, **settings: Any) -> list[Any]:
            self.n_weight_changes += 1
            return super().rank(questions, labels, **settings)

    store = Memory()
    CachedEngine(Changing(), store).rank(asked(1), LABELS)  # type: ignore[arg-type]
    assert not store


@pytest.mark.parametrize("kind", [PackedEngine, ReferenceEngine])
def test_engines_count_the_changes_of_their_weights(kind: Any) -> None:
    loaded = identified()
    engine = CachedEngine(kind(loaded), Memory())  # type: ignore[arg-type]
    before = engine.rank(asked(1), LABELS)
    loaded.model.get_output_embeddings().weight.data *= 2
    engine.weights_changed()
    assert engine.rank(asked(1), LABELS) != before


# Values.

log_probs = st.floats(max_value=0.0, allow_nan=False)
scores = st.builds(LabelScore, st.integers(0, 50), log_probs)
rankings = st.builds(Ranking, st.lists(scores, max_size=4).map(tuple), st.floats(0, 1))
free_answers = st.builds(FreeAnswer, st.lists(st.integers(0, 10**6)).map(tuple), log_probs, st.booleans())


@settings(deadline=None)
@given(rankings, free_answers)
def test_answers_come_back_to_the_last_bit(ranking: Ranking, free: FreeAnswer) -> None:
    engine, store = Counting(), Memory()
    for answer in (ranking, None):
        engine.answer = answer
        assert CachedEngine(engine, store).rank(asked(1), LABELS) == [ranking]  # type: ignore[arg-type]
    for answer in (free, None):
        engine.answer = answer
        found = CachedEngine(engine, store).decode([Prompt((1,))], stop_ids=frozenset())  # type: ignore[arg-type]
        assert found == [free]
