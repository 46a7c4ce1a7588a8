"""Packed training is training row by row: the same loss, the same gradients, fewer tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from training.conftest import TERMINAL, random_llama
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from spacy_relx.engine import attention, decoder
from spacy_relx.errors import PackBudgetError
from spacy_relx.training import gradient
from spacy_relx.training.encode import TrainRow
from spacy_relx.training.gradient import GradientStep
from spacy_relx.training.lora import LoraWeights
from spacy_relx.training.lora_settings import LoraSettings
from spacy_relx.training.loss import pack_loss
from spacy_relx.training.packs import make_pack, make_packs

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARED = (1, 2, 3)

tokens = st.integers(min_value=4, max_value=9)
answers = st.lists(tokens, min_size=1, max_size=3).map(lambda ids: (*ids, TERMINAL))


@st.composite
def train_rows(draw: st.DrawFn) -> list[TrainRow]:
    """Rows of a few texts with several questions each; some are there twice, some answers begin others."""
    texts = draw(st.lists(st.lists(tokens, min_size=1, max_size=6), min_size=1, max_size=3))
    rows = [
        TrainRow((*SHARED, *text, *draw(st.lists(tokens, min_size=1, max_size=3))), draw(answers))
        for text in texts
        for _ in range(draw(st.integers(1, 3)))
    ]
    rows += draw(st.lists(st.sampled_from(rows), max_size=3))
    first = rows[0]
    rows.append(TrainRow(first.prompt, (*first.answer[:-1], 5, TERMINAL)))  # begins with the answer of another
    return draw(st.permutations(rows))


def exact_norm(self: LlamaRMSNorm, hidden: torch.Tensor) -> torch.Tensor:
    """What transformers' own norm computes in float32 alone, whatever it is given."""
    return torch.nn.functional.rms_norm(hidden, hidden.shape[-1:], self.weight, self.variance_epsilon)


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LlamaRMSNorm, "forward", exact_norm)
        yield random_model()


def random_model() -> Any:
    loaded = random_llama()
    weights = LoraWeights(loaded, LoraSettings(4, 8))
    torch.manual_seed(1)
    for name, master in weights.masters.items():
        if "lora_B" in name:  # zero at the start, where A would have no gradient
            master.normal_(0, 0.3)
    weights.write()
    return loaded, weights


def one_by_one(loaded: Any, weights: LoraWeights, rows: list[TrainRow]) -> tuple[float, dict[str, torch.Tensor]]:
    """The sum of the label tokens' losses over all rows, each alone through the stock model, and its gradient."""
    weights.clear_gradients()
    total = 0.0
    for row in rows:
        ids = torch.tensor([[*row.prompt, *row.answer]])
        labels = ids.clone()
        labels[:, : len(row.prompt)] = -100
        logits = loaded.model(input_ids=ids, use_cache=False).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, labels[0, 1:], ignore_index=-100, reduction="sum")
        loss.backward()
        weights.take_gradients()
        total += float(loss.detach())
    return total, {name: master.grad.clone() for name, master in weights.masters.items()}


#: What is different where a GPU, or a model that is no stock Llama, is trained.
WAYS = {
    "as it is": (),
    "a GPU's attention": ((attention, "is_fused", True),),
    "the model's own forward": ((decoder, "is_stock", False),),
}


@given(train_rows(), st.integers(min_value=16, max_value=80))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("way", WAYS)
def test_loss_and_gradients_are_those_of_the_rows_one_by_one(
    model: Any, way: str, rows: list[TrainRow], max_tokens: int
) -> None:
    loaded, weights = model
    expected, gradients = one_by_one(loaded, weights, rows)
    step = GradientStep(loaded, weights, max_tokens)
    with pytest.MonkeyPatch.context() as patch:
        for module, name, answer in WAYS[way]:
            patch.setattr(module, name, lambda _, answer=answer: answer)
        total = step.add(rows)
    assert total == pytest.approx(expected, rel=1e-5)
    assert step.n_rows == len(rows)
    assert step.n_label_tokens == sum(len(row.answer) for row in rows)
    for name, value in gradients.items():
        # The loss is taken, and gradients are added up, in float32, everything else in float64.
        torch.testing.assert_close(weights.masters[name].grad, value, rtol=1e-4, atol=1e-5 * float(value.abs().max()))


def test_the_mean_is_over_all_label_tokens_of_a_step(model: Any) -> None:
    loaded, weights = model
    rows = [TrainRow((1, 2, 3), (4, TERMINAL)), TrainRow((1, 2, 5, 6), (4, 7, 8, TERMINAL))]
    expected, gradients = one_by_one(loaded, weights, rows)
    step = GradientStep(loaded, weights, 64)
    for row in rows:  # in two parts, as gradient accumulation does
        step.add([row])
    assert step.finish() == pytest.approx(expected / 6)
    norm = 0.0
    for name, value in gradients.items():
        torch.testing.assert_close(weights.masters[name].grad, value / 6, rtol=1e-4, atol=1e-5)
        norm += float((value / 6).square().sum())
    assert step.norm == pytest.approx(norm**0.5, rel=1e-4)


ROWS = [TrainRow((*SHARED, a, b), (c, TERMINAL)) for a in (4, 5) for b in (6, 7, 8) for c in (4, 9)]


def gradient_of(model: Any, recomputes: bool, dropout: float = 0.0) -> tuple[float, list[torch.Tensor], int, int]:
    """Loss, gradient, calls of attention modules, and bytes that were kept for the backward pass."""
    loaded, weights = model
    calls, kept = [], {}
    modules = [layer.self_attn for layer in loaded.model.model.layers]
    hooks = [module.register_forward_pre_hook(lambda *_: calls.append(1)) for module in modules]
    theirs = {parameter.data_ptr() for parameter in loaded.model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in theirs:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    step = GradientStep(loaded, weights, 64, gradient_checkpointing=recomputes)
    weights.set_dropout(dropout)
    torch.manual_seed(5)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = step.add(ROWS)
    weights.set_dropout(0.0)
    for hook in hooks:
        hook.remove()
    return loss, [master.grad.clone() for master in weights.masters.values()], len(calls), sum(kept.values())


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_layers_that_are_computed_again_give_the_same_gradient(model: Any, dropout: float) -> None:
    loss, gradient, n_calls, n_bytes = gradient_of(model, False, dropout)
    again, other, n_calls_again, n_bytes_again = gradient_of(model, True, dropout)
    assert again == loss
    assert all(torch.equal(a, b) for a, b in zip(other, gradient))
    assert n_calls == 3
    assert n_calls_again == 2 * n_calls
    assert n_bytes_again < 0.25 * n_bytes
    assert gradient_of(model, False, dropout)[2] == n_calls  # nothing is left behind


def test_answers_are_not_computed_twice(model: Any) -> None:
    loaded, weights = model
    step = GradientStep(loaded, weights, 64, gradient_checkpointing=True)
    before = [vars(layer).copy() for layer in loaded.model.model.layers]
    plain = GradientStep(loaded, weights, 64).loss(ROWS)
    step.add(ROWS)
    step.reset()
    assert step.loss(ROWS) == plain
    assert [vars(layer).keys() for layer in loaded.model.model.layers] == [found.keys() for found in before]


def test_a_forward_that_others_put_on_a_layer_stays(model: Any) -> None:
    (layer, *_), calls = model[0].model.model.layers, []
    plain = layer.forward

    def theirs(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return plain(*args, **kwargs)

    layer.forward = theirs
    try:
        gradient_of(model, True)
        assert layer.forward is theirs
        assert len(calls) == 2
    finally:
        del layer.forward


def test_a_repeated_row_keeps_its_weight() -> None:
    row, other = TrainRow((1, 2), (4, TERMINAL)), TrainRow((1, 2), (5, TERMINAL))
    pack = make_pack([row, row, row, other])
    assert pack.n_rows == 4
    assert pack.n_label_tokens == 8
    assert len(pack.tree) == 4  # 1 2, then 4 or 5
    assert sorted(zip(pack.tokens.tolist(), pack.counts.tolist())) == [
        (4, 3.0),
        (5, 1.0),
        (TERMINAL, 1.0),
        (TERMINAL, 3.0),
    ]


def test_a_label_that_begins_another_keeps_its_own_terminal() -> None:
    short, long = TrainRow((1, 2), (4, TERMINAL)), TrainRow((1, 2), (4, 5, TERMINAL))
    pack = make_pack([short, long])
    assert pack.tree.ids.tolist() == [1, 2, 4, 5]
    wanted = {
        (int(pack.tree.ids[pack.predictors[of]]), int(token)): count
        for of, token, count in zip(pack.of, pack.tokens, pack.counts.tolist())
    }
    assert wanted == {(2, 4): 2.0, (4, TERMINAL): 1.0, (4, 5): 1.0, (5, TERMINAL): 1.0}


@given(train_rows(), st.integers(min_value=16, max_value=60))
def test_packs_keep_every_row_within_the_budget(rows: list[TrainRow], max_tokens: int) -> None:
    packs = list(make_packs(rows, max_tokens))
    assert sum(pack.n_rows for pack in packs) == len(rows)
    assert sum(pack.n_label_tokens for pack in packs) == sum(len(row.answer) for row in rows)
    assert all(len(pack.tree) <= max_tokens for pack in packs)
    for pack in packs:
        assert np.array_equal(np.unique(pack.of), np.arange(len(pack.predictors)))


def test_shared_tokens_are_computed_once() -> None:
    prefix = tuple(range(1, 31))
    rows = [TrainRow((*prefix, 31, i), (32, TERMINAL)) for i in range(33, 38)]
    pack = make_pack(rows)
    assert sum(len(row.read) for row in rows) == 5 * 33
    assert len(pack.tree) == 30 + 1 + 5 * 2


def test_a_row_longer_than_the_budget_is_refused() -> None:
    with pytest.raises(PackBudgetError, match="has 32 tokens"):
        list(make_packs([TrainRow(tuple(range(1, 31)), (32, 33, TERMINAL))], 30))


def test_looking_at_the_loss_learns_nothing(model: Any) -> None:
    loaded, weights = model
    rows = [TrainRow((1, 2, 3), (4, TERMINAL))]
    step = GradientStep(loaded, weights, 64)
    loss, n = step.loss(rows)
    assert n == 2
    assert all(float(master.grad.abs().max()) == 0 for master in weights.masters.values())
    assert step.add(rows) == pytest.approx(loss, rel=1e-9)


class Full:
    """A model that has no memory for packs of more than some tokens."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.sizes: list[int] = []

    def __call__(self, model: Any, pack: Any, *, recompute: bool) -> torch.Tensor:
        self.sizes.append(len(pack.tree))
        if len(pack.tree) > self.limit:
            raise torch.OutOfMemoryError("no memory")
        return pack_loss(model, pack, recompute=recompute)


ROWS = [TrainRow((1, 2, i), (4, TERMINAL)) for i in range(5, 13)]


def test_a_pack_that_does_not_fit_is_halved(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, weights = model
    expected, gradients = one_by_one(loaded, weights, ROWS)
    step = GradientStep(loaded, weights, 64)
    full = Full(8)
    monkeypatch.setattr(gradient, "pack_loss", full)
    assert step.add(ROWS) == pytest.approx(expected, rel=1e-5)
    assert full.sizes == [18, 10, 6, 6, 10, 6, 6]
    assert step.n_rows == len(ROWS)
    for name, value in gradients.items():
        torch.testing.assert_close(weights.masters[name].grad, value, rtol=1e-4, atol=1e-4 * float(value.abs().max()))


def test_a_row_that_does_not_fit_leaves_nothing_behind(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, weights = model
    step = GradientStep(loaded, weights, 64)
    monkeypatch.setattr(gradient, "pack_loss", Full(4))
    long = TrainRow((1, 2, 13, 14, 15), (4, TERMINAL))
    with pytest.raises(PackBudgetError, match="One training row alone does not fit into memory"):
        step.add([*ROWS, long])
    assert step.n_rows == step.n_label_tokens == 0
    assert all(float(master.grad.abs().max()) == 0 for master in weights.masters.values())
    assert all(p.grad is None for p in loaded.model.parameters())
