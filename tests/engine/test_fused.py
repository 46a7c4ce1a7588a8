"""The GPU's way through a pack, on a processor: the same answers and the same gradients as one prompt at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spacy_relx.engine import attention, packing, prefix_tree
from spacy_relx.engine.attention import KeyValueStore, PackAttention
from spacy_relx.engine.fused import FusedAttention, FusedStore
from spacy_relx.engine.packed import PackedEngine
from spacy_relx.engine.reference import ReferenceEngine
from spacy_relx.engine.types import LabelIds, Prompt, Question

from .compare import assert_exact
from .conftest import TERMINAL, tiny_llama
from .strategies import label_sets, questions

CPU = torch.device("cpu")


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "is_fused", lambda device: True)


@st.composite
def asked(draw: st.DrawFn) -> tuple[LabelIds, list[Question]]:
    labels = draw(label_sets())
    return labels, draw(questions(labels))


@given(asked(), st.integers(20, 60), st.sampled_from(["trie", "sequence"]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("fused")
def test_answers_are_those_of_the_reference(
    tiny: Any, case: tuple[LabelIds, list[Question]], budget: int, scoring: Any
) -> None:
    labels, work = case
    oracle = ReferenceEngine(tiny).rank(work, labels, top_k=len(labels), scoring=scoring)
    engine = PackedEngine(tiny, budget)
    assert_exact(work, engine.rank(work, labels, top_k=len(labels), scoring=scoring), oracle, len(labels))
    assert all(isinstance(store, FusedStore) for store in engine._shared.values())


@pytest.mark.usefixtures("fused")
def test_free_answers_are_those_of_the_reference(tiny: Any) -> None:
    prompts = [Prompt((0, 1, 2, i, i % 3), 3) for i in range(8)]
    stop = frozenset({TERMINAL})
    got = PackedEngine(tiny).decode(prompts, stop_ids=stop)
    assert [a.ids for a in got] == [a.ids for a in ReferenceEngine(tiny).decode(prompts, stop_ids=stop)]


@pytest.mark.parametrize("kept", [True, False])
def test_one_layer_answers_as_plain_products_do(kept: bool) -> None:
    """Several buckets, blocks cut within runs, a shared run; with a store that grows, and without one."""
    generator = torch.Generator().manual_seed(0)
    rng = np.random.default_rng(0)
    prompts = [tuple(rng.integers(0, 3, int(n)).tolist()) for n in rng.integers(1, 40, 30)]
    tree = prefix_tree.build(prompts)
    plan = packing.plan_tree(tree, max_block=8)
    assert len(plan.buckets) > 1

    def states(n: int, heads: int) -> torch.Tensor:
        return torch.randn(1, heads, n, 8, generator=generator)

    run = tuple(states(5, heads) for heads in (4, 2, 2))
    nodes = tuple(states(len(tree), heads) for heads in (4, 2, 2))
    plain_run, fused_run = KeyValueStore(5), FusedStore(1)
    own = packing.plan_tree(prefix_tree.build([tuple(range(5))]))
    for store, way in (
        (plain_run, PackAttention(own, CPU, plain_run)),
        (fused_run, FusedAttention(own, CPU, fused_run)),
    ):
        store.reserve(5)
        way.attend(0, *run, 0.3)
        store.advance(5)
    plain, fused = KeyValueStore(2, plain_run), FusedStore(2, fused_run)
    for store in (plain, fused):
        store.reserve(len(tree))
    if kept:
        expected = PackAttention(plan, CPU, plain).attend(0, *nodes, 0.3)
        found = FusedAttention(plan, CPU, fused).attend(0, *nodes, 0.3)
    else:
        expected = PackAttention(plan, CPU, None).attend(0, *nodes, 0.3)
        found = FusedAttention(plan, CPU, None).attend(0, *nodes, 0.3)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_its_gradients_are_those_of_plain_products() -> None:
    tree = prefix_tree.build([(1, 2, 3), (1, 2, 4, 4), (1, 5), (2,)])
    plan = packing.plan_tree(tree)
    torch.manual_seed(0)
    leaves = [torch.randn(1, heads, len(tree), 8, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2)]
    weight = torch.randn(1, len(tree), 4, 8, dtype=torch.float64)
    gradients = []
    for way in (PackAttention(plan, CPU, None), FusedAttention(plan, CPU, None)):
        (way.attend(3, *leaves, 0.5) * weight).sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
        for leaf in leaves:
            leaf.grad = None
    for found, expected in zip(*gradients):
        torch.testing.assert_close(found, expected)


def test_a_grown_store_keeps_what_it_held() -> None:
    store = FusedStore(1)
    held = []
    for i in range(6):
        store.reserve(2)
        keys, values = torch.full((2, 1, 4), float(i)), torch.full((2, 1, 4), -float(i))
        store.write(0, keys, values)
        store.advance(2)
        held.append(keys)
    assert torch.equal(store.layer(0)[0], torch.cat(held))
    assert torch.equal(store.layer(0)[1], -torch.cat(held))


def test_the_next_pack_is_planned_before_this_one_is_asked_for_its_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a GPU computes one pack, the processor plans the next: all of its work for it but the search."""
    events: list[str] = []
    plan, run = packing.plan_tree, PackedEngine._forward

    def planned(*args: Any) -> Any:
        events.append("plan")
        return plan(*args)

    def computed(*args: Any) -> Any:
        events.append("compute")
        return run(*args)

    engine = PackedEngine(tiny_llama(), 24)
    first = engine._head.logits

    def looked(*args: Any) -> Any:
        events.append("look")
        return first(*args)

    monkeypatch.setattr(packing, "plan_tree", planned)
    monkeypatch.setattr(PackedEngine, "_forward", computed)
    monkeypatch.setattr(engine._head, "logits", looked)
    labels = LabelIds(((4,), (5,)), TERMINAL)
    engine.rank([Question(Prompt((1, 2, i % 4, i // 4, 3, i % 3)), (0, 1)) for i in range(12)], labels)
    middle = ["plan", "look", "compute"]
    assert events == ["plan", "compute", *middle, *middle, "look"]
