from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch

from spacy_relx.engine.packed import PackedEngine
from spacy_relx.engine.reference import ReferenceEngine
from spacy_relx.engine.select import make_engine
from spacy_relx.engine.types import LabelIds, Prompt, Question
from spacy_relx.errors import ModelError, PackBudgetError, RelxWarning

from .compare import assert_exact
from .conftest import TERMINAL, tiny_llama

LABELS = LabelIds(((4,), (5, 6), (5, 4)), TERMINAL)
EVERYTHING = (0, 1, 2)
SHARED = (0, 1, 2, 3)


def asked(n: int) -> list[Question]:
    return [Question(Prompt((*SHARED, 1, 2, i % 4, i // 4), len(SHARED)), EVERYTHING) for i in range(n)]


def test_work_on_a_fixed_document_is_counted(tiny: Any) -> None:
    """A lost optimisation shows here: the shared run once, one pass for the pack, one for the label search."""
    engine = PackedEngine(tiny)
    engine.rank(asked(8), LABELS, top_k=3)
    distinct = len(SHARED) + 2 + 4 + 8  # the run, `1 2`, four tokens below it, eight below those
    assert engine.work.n_prompt_tokens == 8 * 8
    assert engine.work.n_tokens == distinct + 8  # and one token a prompt to tell `5 6` from `5 4`
    assert engine.work.n_forward == 3
    engine.rank(asked(8), LABELS, top_k=3)
    assert engine.work.n_forward == 5  # the shared run is kept
    assert engine.work.n_tokens == 2 * (distinct + 8) - len(SHARED)


def test_a_change_of_the_weights_is_seen_after_notice() -> None:
    loaded = tiny_llama()
    engine = PackedEngine(loaded)
    before = engine.rank(asked(4), LABELS, top_k=3)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.mul_(1.2)
    engine.weights_changed()
    after = engine.rank(asked(4), LABELS, top_k=3)
    assert before != after
    assert_exact(asked(4), after, ReferenceEngine(loaded).rank(asked(4), LABELS, top_k=3), 3)


def test_shared_runs_are_kept_by_their_ids(tiny: Any) -> None:
    engine = PackedEngine(tiny)
    for first in (0, 1, 2, 3, 0, 1):
        one = [Question(Prompt((first, 1, 2, 3), 2), EVERYTHING)]
        assert_exact(one, engine.rank(one, LABELS, top_k=3), ReferenceEngine(tiny).rank(one, LABELS, top_k=3), 3)
    assert engine.work.extra == {}


class _Failing:
    """A decoder that has too little memory for long inputs."""

    def __init__(self, decoder: Any, limit: int, error: Exception) -> None:
        self.decoder, self.limit, self.error = decoder, limit, error

    def __call__(self, *, input_ids: Any, **kwargs: Any) -> Any:
        if input_ids.shape[1] > self.limit:
            raise self.error
        return self.decoder(input_ids=input_ids, **kwargs)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
        MemoryError("no more"),
        RuntimeError("CUDA error: out of memory"),
    ],
    ids=["cuda", "cpu", "python", "driver"],
)
def test_out_of_memory_halves_the_pack_and_goes_on(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    loaded = tiny_llama()
    engine = PackedEngine(loaded)
    expected = engine.rank(asked(16), LABELS, top_k=3)
    failing = _Failing(loaded.model.get_decoder(), 16, error)
    monkeypatch.setattr(loaded.model, "get_decoder", lambda: failing)
    engine = PackedEngine(loaded)
    assert_exact(asked(16), engine.rank(asked(16), LABELS, top_k=3), expected, 3)
    assert engine.work.n_out_of_memory >= 1


def test_a_prompt_that_alone_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tiny_llama()
    failing = _Failing(loaded.model.get_decoder(), 1, MemoryError("no more"))
    monkeypatch.setattr(loaded.model, "get_decoder", lambda: failing)
    with pytest.raises(PackBudgetError, match="One prompt alone does not fit into memory"):
        PackedEngine(loaded).rank(asked(4), LABELS)


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tiny_llama()
    monkeypatch.setattr(loaded.model, "get_decoder", lambda: _Failing(None, 0, RuntimeError("mat1 and mat2 shapes")))
    engine = PackedEngine(loaded)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        engine.rank(asked(4), LABELS)
    assert engine.work.n_out_of_memory == 0


def test_a_prompt_longer_than_the_model_s_positions_is_an_error(tiny: Any) -> None:
    with pytest.raises(PackBudgetError, match="has 600 tokens, but the model was made for 512"):
        PackedEngine(tiny).rank([Question(Prompt((1,) * 600), EVERYTHING)], LABELS)


def test_no_questions_are_no_answers(tiny: Any) -> None:
    engine = PackedEngine(tiny)
    assert engine.rank([], LABELS) == []
    assert engine.decode([], stop_ids=frozenset()) == []
    assert engine.work.n_forward == 0


def test_the_plain_forward_pass_of_a_model_stays_what_it_was() -> None:
    loaded = tiny_llama()
    ids = torch.tensor([[1, 2, 3, 0, 2]])
    before = loaded.model(ids).logits
    PackedEngine(loaded)
    assert torch.equal(loaded.model(ids).logits, before)


def test_bfloat16_is_close_and_deterministic() -> None:
    loaded = tiny_llama(initializer_range=0.1)
    exact = PackedEngine(loaded).rank(asked(12), LABELS, top_k=3)
    short = copy.deepcopy(loaded)
    short.model.to(torch.bfloat16)
    short.dtype = torch.bfloat16
    engine = PackedEngine(short)
    got = engine.rank(asked(12), LABELS, top_k=3)
    assert got == engine.rank(asked(12), LABELS, top_k=3)
    for a, b in zip(got, exact):
        true = {score.label: score.prob for score in b.scores}
        assert all(abs(score.prob - true[score.label]) < 0.05 for score in a.scores)


def test_threads_may_share_an_engine(tiny: Any) -> None:
    engine = PackedEngine(tiny)
    expected = engine.rank(asked(8), LABELS, top_k=3)
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(engine.rank(asked(8), LABELS, top_k=3))) for _ in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert results == [expected] * 4


def test_a_usual_model_gets_the_packed_engine(tiny: Any) -> None:
    engine = make_engine(tiny)
    assert isinstance(engine, PackedEngine)
    assert engine.work.n_forward == 0  # the trial is not counted


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}},
            "rotary positions of the type 'dynamic'",
        ),
        (
            {
                "rope_parameters": {
                    "rope_type": "longrope",
                    "rope_theta": 10000.0,
                    "long_factor": [1.0] * 4,
                    "short_factor": [2.0] * 4,
                    "factor": 2.0,
                    "original_max_position_embeddings": 16,
                }
            },
            "rotary positions of the type 'longrope'",
        ),
    ],
    ids=["dynamic", "longrope"],
)
def test_models_outside_the_assumptions_run_by_the_reference(changes: dict[str, Any], reason: str) -> None:
    loaded = tiny_llama(**changes)
    with pytest.warns(RelxWarning, match=reason):
        engine = make_engine(loaded)
    assert isinstance(engine, ReferenceEngine)


def test_a_model_that_gives_other_answers_when_packed_runs_by_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tiny_llama()
    decoder = loaded.model.get_decoder()

    def forgets_positions(**kwargs: Any) -> Any:
        kwargs.pop("position_ids", None)
        return decoder(**kwargs)

    monkeypatch.setattr(loaded.model, "get_decoder", lambda: forgets_positions)
    with pytest.warns(RelxWarning, match="gave scores that differ by .* when prompts were packed"):
        assert isinstance(make_engine(loaded), ReferenceEngine)


def test_scaled_rotary_positions_of_llama_3_are_exact() -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    loaded = tiny_llama(rope_parameters=rope)
    engine = make_engine(loaded)
    assert isinstance(engine, PackedEngine)
    oracle = ReferenceEngine(loaded).rank(asked(16), LABELS, top_k=3)
    assert_exact(asked(16), engine.rank(asked(16), LABELS, top_k=3), oracle, 3)


def test_a_model_that_changes_its_logits_is_refused() -> None:
    loaded = tiny_llama()
    loaded.model.config.final_logit_softcapping = 30.0
    with pytest.raises(ModelError, match="changes its logits by `final_logit_softcapping`"):
        PackedEngine(loaded)


def test_an_output_layer_that_is_no_plain_matrix_is_refused() -> None:
    loaded = tiny_llama()

    class Adapted(torch.nn.Linear):
        """Stands for a LoRA layer around the output matrix."""

    loaded.model.set_output_embeddings(Adapted(32, 40, bias=False))
    with pytest.raises(ModelError, match="output layer Adapted, which cannot be read row by row"):
        ReferenceEngine(loaded)
