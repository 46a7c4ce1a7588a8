"""The measuring itself: hand-worked numbers, no times."""

from __future__ import annotations

import itertools
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from spacy_relx.benchmark import limit, machine, memory, parts
from spacy_relx.benchmark.documents import made_up
from spacy_relx.benchmark.engine_run import pass_sizes, usual_rows
from spacy_relx.benchmark.timing import Summary, interleave, rates, ratios
from spacy_relx.engine.loading import load_model
from spacy_relx.engine.packed import PackedEngine
from spacy_relx.engine.spec import ModelSpec
from spacy_relx.engine.types import LabelIds, Prompt, Question

if TYPE_CHECKING:
    from pathlib import Path


def test_the_limit_by_hand() -> None:
    shapes = {(4, 3): 2, (5, 4): 1}
    assert limit.n_parameters(shapes) == 44
    # 44 multiplications and additions a token, 10 tokens, 1760 a second: 880 / 1760.
    assert limit.limit_seconds(44, 10, 1760.0) == pytest.approx(0.5)
    products = limit.MatrixProducts(shapes, 7, torch.float32, torch.device("cpu"))
    assert products.flop == 2 * 44 * 7
    products()


def test_distinct_tokens_by_hand() -> None:
    def ask(*ids: int) -> Question:
        return Question(Prompt(ids, 1), (0,))

    calls = [[ask(9, 1, 2, 3), ask(9, 1, 2, 4), ask(9, 5)], [ask(9, 1)], []]
    # After the shared 9: 1 2 3, then 4, then 5; and 1 in the other call.
    assert limit.count_tokens(calls, None) == limit.Tokens(prompts=12, distinct=6, in_packs=6)
    # Packs of three: [1 2 3], then [1 2 4] again from the start, then [5], which still fits nowhere but behind it.
    assert limit.count_tokens(calls, 3) == limit.Tokens(prompts=12, distinct=6, in_packs=8)


def test_matrices_of_a_model(tiny_llama: Path) -> None:
    model: Any = load_model(ModelSpec(str(tiny_llama), dtype="float32", device="cpu")).model
    # Two layers: q and o 32 x 32, k and v 16 x 32, gate and up 64 x 32, down 32 x 64. No embedding, no output.
    assert limit.matrix_shapes(model) == Counter({(32, 32): 4, (16, 32): 4, (64, 32): 4, (32, 64): 2})
    assert limit.n_parameters(limit.matrix_shapes(model)) == 18432
    sizes = pass_sizes(model, lambda: model(input_ids=torch.tensor([[1, 2, 3]])))
    assert sizes == [3]


def test_an_adapted_matrix_counts_once() -> None:
    base = torch.nn.Linear(3, 4, bias=False)
    adapted = torch.nn.Module()
    adapted.in_features, adapted.out_features = 3, 4
    adapted.base_layer, adapted.lora_A = base, torch.nn.Linear(3, 1)
    decoder = torch.nn.ModuleDict({"q": adapted, "q_other": torch.nn.Linear(3, 2)})
    model = SimpleNamespace(get_decoder=lambda: decoder)
    assert limit.matrix_shapes(model) == Counter({(4, 3): 1, (2, 3): 1})


def test_the_usual_pass_is_the_one_most_tokens_are_in() -> None:
    assert usual_rows([100, 10, 10]) == 85
    assert usual_rows([]) == 0


def test_things_run_in_turn() -> None:
    order: list[str] = []
    told = interleave({"a": lambda: order.append("a"), "b": lambda: 0.25}, 3, synchronise=lambda: order.append("-"))
    assert order == ["-", "a", "-", "-", "-"] * 4
    assert len(told["a"]) == 3
    assert told["b"] == [0.25] * 3


def test_summaries() -> None:
    assert Summary.of([3.0, 1.0, 2.0]).to_dict() == {"n": 3, "median": 2.0, "min": 1.0, "max": 3.0}
    assert Summary.of([12345.6]).to_dict()["median"] == 12350.0
    assert rates([0.5, 2.0], 10) == [20.0, 5.0]
    assert ratios([6.0, 8.0], [3.0, 2.0]) == [2.0, 4.0]


def test_a_clock_gives_each_span_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr("spacy_relx.benchmark.parts.time.perf_counter", lambda: float(next(ticks)))
    clock = parts.Clock()
    with clock.span("outer"):  # 0
        with clock.span("inner"):  # 1 to 2
            pass
        with clock.span("inner"):  # 3 to 4
            pass
    assert dict(clock.seconds) == {"outer": 3.0, "inner": 2.0}
    assert parts.shares(dict(clock.seconds)) == {"outer": 0.6, "inner": 0.4}
    assert parts.shares({}) == {}


def test_a_model_reports_its_parts(tiny_llama: Path) -> None:
    model: Any = load_model(ModelSpec(str(tiny_llama), dtype="float32", device="cpu")).model
    clock = parts.Clock()
    with parts.watch_model(model, clock):
        model(input_ids=torch.tensor([[1, 2, 3]]))
    assert set(clock.seconds) == {"rest of model", "matrix products", "attention"}
    before = dict(clock.seconds)
    model(input_ids=torch.tensor([[1, 2, 3]]))
    assert dict(clock.seconds) == before


def test_the_engine_reports_its_parts_on_the_way_it_always_takes(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(ModelSpec(str(tiny_llama), dtype="float32", device="cpu"))
    engine = PackedEngine(loaded)
    prompts = [Question(Prompt((9, 1, 2, end), 1), (0, 1)) for end in (3, 4, 5)]
    monkeypatch.setattr("spacy_relx.engine.packed.own_forward", None)  # a hook in the wrong place would lead here
    clock = parts.Clock()
    with parts.watch_model(loaded.model, clock):
        engine.rank(prompts, LabelIds(((3,), (4,)), 2))
    assert set(clock.seconds) == {"rest of model", "matrix products", "attention"}
    sizes = pass_sizes(loaded.model, lambda: engine.rank(prompts, LabelIds(((3,), (4,)), 2)))
    assert sizes == [5]  # the shared run is kept from before; below it 1 2 and three ends


@pytest.mark.parametrize(("entities", "words"), [(2, None), (4, 60), (40, None)])
def test_documents_are_as_asked_for(entities: int, words: int | None) -> None:
    documents = made_up(3, entities, words, seed=1)
    assert documents == made_up(3, entities, words, seed=1) != made_up(3, entities, words, seed=2)
    for document in documents:
        assert len(document.mentions) == entities
        assert len(document.pairs()) == entities * (entities - 1)
        assert words is None or abs(len(document.words) - words) <= 8
        texts = [document.text_of(mention) for mention in document.mentions]
        assert len(set(texts)) == entities
        assert all(text in document.text for text in texts)
        ends = [0, *(mention.end for mention in document.mentions)]
        assert all(mention.start >= end for mention, end in zip(document.mentions, ends))


def test_documents_need_two_entities() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        made_up(1, 1)


def test_two_hundred_entities() -> None:
    (document,) = made_up(1, 200)
    assert len({document.text_of(mention) for mention in document.mentions}) == 200


def test_machine_and_memory() -> None:
    facts = machine.provenance()
    assert {"command", "date", "commit", "machine", "threads", "versions"} == set(facts)
    assert facts["machine"]["usable_cores"] >= 1
    assert memory.peak_bytes() >= memory.current_bytes() // 2 > 0
