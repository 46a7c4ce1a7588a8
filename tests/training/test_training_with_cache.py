"""An adapter in training and an answer cache do not get into each other's way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import spacy
from lessons import LABELS, adam, examples, learner, part, scores, training_block
from tiny import FACTORY, model_block

if TYPE_CHECKING:
    from pathlib import Path

    from spacy.language import Language

pytestmark = pytest.mark.usefixtures("one_thread")


def with_cache(base: Path, folder: Path) -> Language:
    """As `learner`, with an answer cache."""
    nlp = spacy.blank("xx")
    model = {"@architectures": "spacy-relx.Cached.v1", "model": model_block(base), "path": str(folder)}
    nlp.add_pipe(FACTORY, config={"model": model, "labels": LABELS, "threshold": 0.0, "training": training_block()})
    return nlp


def test_scores_while_training_are_never_those_of_earlier_weights(tiny_llama: Path, tmp_path: Path) -> None:
    nlp, bare = with_cache(tiny_llama, tmp_path / "answers"), learner(tiny_llama)
    untrained = scores(nlp)
    for pipe in (nlp, bare):
        pipe.initialize(examples)
        optimizer = adam()
        for _ in range(2):
            pipe.update(examples(), sgd=optimizer)
            scores(pipe)
    trained = scores(nlp)
    assert trained == pytest.approx(scores(bare), abs=1e-5)
    assert max(abs(trained[key] - untrained[key]) for key in trained) > 1e-3
    assert part(nlp)._shim.engine.work.n_cached == 0
    nlp.to_disk(tmp_path / "saved")
    for n_cached in (0, len(trained) // (len(part(nlp).labels) + 1)):
        loaded = spacy.load(tmp_path / "saved")
        assert scores(loaded) == pytest.approx(trained, abs=1e-5)
        assert part(loaded)._shim.engine.work.n_cached == n_cached
    assert scores(with_cache(tiny_llama, tmp_path / "answers")) == untrained
