"""The exactness that is promised, as an assertion."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spacy_relx.engine.types import Question, Ranking

#: Largest difference of two scores in float32, and the margin from which labels have to be equal.
SCORE_TOLERANCE = 1e-4
MARGIN = 2e-4


def assert_exact(
    questions: Sequence[Question], packed: Sequence[Ranking], reference: Sequence[Ranking], top_k: int
) -> int:
    """Compare with a reference that ranked every label; return how many places were too close to tell."""
    assert len(packed) == len(reference) == len(questions)
    n_close = 0
    for question, got, oracle in zip(questions, packed, reference):
        assert len(oracle.scores) == len(set(question.allowed))
        assert len(got.scores) == min(top_k, len(oracle.scores))
        true = {score.label: score.prob for score in oracle.scores}
        assert len({score.label for score in got.scores}) == len(got.scores)
        for place, score in enumerate(got.scores):
            assert abs(score.prob - true[score.label]) <= SCORE_TOLERANCE
            expected = oracle.scores[place]
            if score.label != expected.label:
                assert abs(true[score.label] - expected.prob) <= MARGIN
                n_close += 1
    return n_close
