"""The first property nothing may break: a packed prompt is answered as if it had been alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spacy_relx.engine.packed import PackedEngine
from spacy_relx.engine.reference import ReferenceEngine
from spacy_relx.engine.types import LabelIds, Prompt, Question

from .compare import assert_exact
from .conftest import TERMINAL, tiny_llama
from .strategies import label_sets, prompt_lists, questions

# The fixture is a frozen random model; sharing it between examples is the point.
relaxed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("scoring", ["trie", "sequence"])
@relaxed
@given(data=st.data())
def test_scores_and_labels_are_the_reference_s(tiny: Any, scoring: Any, data: st.DataObject) -> None:
    labels = data.draw(label_sets())
    asked = data.draw(questions(labels))
    budget = data.draw(st.sampled_from([20, 50, 1000]))
    top_k = data.draw(st.integers(1, len(labels)))
    got = PackedEngine(tiny, budget).rank(asked, labels, top_k=top_k, scoring=scoring)
    oracle = ReferenceEngine(tiny).rank(asked, labels, top_k=len(labels), scoring=scoring)
    assert_exact(asked, got, oracle, top_k)


@pytest.mark.parametrize("scoring", ["trie", "sequence"])
@relaxed
@given(data=st.data())
def test_the_probabilities_of_all_labels_sum_to_one(tiny: Any, scoring: Any, data: st.DataObject) -> None:
    labels = data.draw(label_sets())
    asked = data.draw(questions(labels, max_size=4))
    for ranking in PackedEngine(tiny).rank(asked, labels, top_k=len(labels), scoring=scoring):
        assert sum(score.prob for score in ranking.scores) == pytest.approx(1.0, abs=1e-6)
        assert ranking.residual == 0.0


@relaxed
@given(data=st.data())
def test_a_sequence_score_is_within_its_stated_residual(tiny: Any, data: st.DataObject) -> None:
    labels = data.draw(label_sets())
    asked = data.draw(questions(labels, max_size=4))
    tolerance = data.draw(st.sampled_from([0.3, 0.05, 1e-3]))
    got = PackedEngine(tiny).rank(asked, labels, scoring="sequence", tolerance=tolerance)
    oracle = ReferenceEngine(tiny).rank(asked, labels, top_k=len(labels), scoring="sequence")
    for ranking, true in zip(got, oracle):
        assert ranking.residual <= tolerance
        exact = {score.label: score.prob for score in true.scores}
        best = ranking.scores[0]
        # Leaving mass out can only enlarge a share, and by no more than the mass left out.
        assert exact[best.label] - 1e-5 <= best.prob <= exact[best.label] / (1 - ranking.residual) + 1e-5


@relaxed
@given(data=st.data())
def test_free_decoding_writes_what_the_reference_writes(tiny: Any, data: st.DataObject) -> None:
    prompts = data.draw(prompt_lists())
    stop = frozenset(data.draw(st.sets(st.integers(0, TERMINAL), max_size=6)) | {TERMINAL})
    limit = data.draw(st.integers(1, 8))
    budget = data.draw(st.sampled_from([20, 1000]))
    got = PackedEngine(tiny, budget).decode(prompts, stop_ids=stop, max_new_tokens=limit)
    oracle = ReferenceEngine(tiny).decode(prompts, stop_ids=stop, max_new_tokens=limit)
    for a, b in zip(got, oracle, strict=True):
        assert (a.ids, a.finished) == (b.ids, b.finished)
        assert a.log_prob == pytest.approx(b.log_prob, abs=1e-4)


@relaxed
@given(data=st.data(), random=st.randoms())
def test_order_and_company_do_not_change_an_answer(tiny: Any, data: st.DataObject, random: Any) -> None:
    labels = data.draw(label_sets())
    asked = data.draw(questions(labels))
    shuffled = list(range(len(asked)))
    random.shuffle(shuffled)
    together = PackedEngine(tiny).rank([asked[i] for i in shuffled], labels)
    for place, i in enumerate(shuffled):
        (alone,) = PackedEngine(tiny).rank([asked[i]], labels)
        assert together[place].scores[0].prob == pytest.approx(alone.scores[0].prob, abs=1e-4)


def test_prompts_with_different_beginnings_share_a_pack(tiny: Any) -> None:
    labels = LabelIds(((4, 5), (4, 6), (5,)), TERMINAL)
    asked = [Question(Prompt((1, 2, 3, 0), 3), (0, 1, 2)), Question(Prompt((2, 2, 1), 1), (0, 1, 2))]
    got = PackedEngine(tiny).rank(asked, labels, top_k=3)
    assert_exact(asked, got, ReferenceEngine(tiny).rank(asked, labels, top_k=3), 3)


def test_exact_ties_go_to_schema_order() -> None:
    loaded = tiny_llama()
    loaded.model.get_output_embeddings().weight.zero_()  # every token is equally likely
    labels = LabelIds(((9, 8), (5,), (7, 4), (6,)), TERMINAL)
    asked = [Question(Prompt((1, 2)), (0, 1, 2, 3))]
    for engine in (PackedEngine(loaded), ReferenceEngine(loaded)):
        (ranking,) = engine.rank(asked, labels, top_k=4)
        assert [score.label for score in ranking.scores] == [0, 1, 2, 3]
        assert [score.prob for score in ranking.scores] == pytest.approx([0.25] * 4)


def test_every_search_step_is_exact(tiny: Any) -> None:
    """A trie with a choice at each of five tokens: a wrong mask at any step of the search would show."""
    sequences = [tuple(4 + (i >> bit & 1) for bit in range(5)) for i in range(32)]
    labels = LabelIds(tuple(sequences), TERMINAL)
    everything = tuple(range(32))
    asked = [Question(Prompt((0, 1, 2, *ids), 3), everything) for ids in [(1,), (1, 2), (3, 3, 3), (2, 1, 0, 1)]]
    engine = PackedEngine(tiny)
    got = engine.rank(asked, labels, top_k=32)
    assert_exact(asked, got, ReferenceEngine(tiny).rank(asked, labels, top_k=32), 32)
    # Each prompt has 1 + 2 + 4 + 8 inner nodes below its root, and each is followed exactly once.
    assert engine.work.n_expansions == len(asked) * (2 + 4 + 8 + 16)


def test_the_last_tokens_of_a_long_pack_see_all_of_their_path(tiny: Any) -> None:
    labels = LabelIds(((4,), (5, 6), (5, 4)), TERMINAL)
    base = tuple(i % 4 for i in range(150))
    asked = [Question(Prompt((*base, *base[:k], 3)), (0, 1, 2)) for k in range(0, 150, 7)]
    got = PackedEngine(tiny, 10_000).rank(asked, labels, top_k=3)
    assert_exact(asked, got, ReferenceEngine(tiny).rank(asked, labels, top_k=3), 3)
