"""What a decoder layer keeps for its gradient: the right gradient, and less kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor
from torch.nn import functional

from spacy_relx.engine import attention, decoder, frugal, packing, prefix_tree
from spacy_relx.engine.blocks import Blocks, attended
from spacy_relx.engine.frugal import AdaptedMatrix

from .conftest import tiny_llama

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

TAILS = [(0, 5, 7, 9, 3), (0, 5, 7, 9, 3, 4, 4), (0, 5, 7, 9, 8, 1), (0, 5, 7, 2, 6, 6, 6, 6, 6)]
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def random(*shape: int, wants_gradient: bool = False) -> Tensor:
    return torch.randn(shape, dtype=torch.float64).requires_grad_(wants_gradient)


def inputs() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Two kinds of rows, and the matrices W (frozen), A and B."""
    torch.manual_seed(0)
    rows = random(5, 6, wants_gradient=True), random(5, 6, wants_gradient=True)
    return rows, (random(4, 6), random(2, 6, wants_gradient=True), random(4, 2, wants_gradient=True))


@pytest.mark.parametrize("n_matrices", [1, 3])
def test_products_beside_adapters(n_matrices: int) -> None:
    (rows, _), _ = inputs()
    sizes = [(4, 2), (3, 1), (5, 2)][:n_matrices]  # outputs and rank
    scalings = (0.5, 2.0, 1.0)
    weights = [random(n, 6) for n, _ in sizes]
    adapters = [random(*shape, wants_gradient=True) for n, rank in sizes for shape in ((rank, 6), (n, rank))]

    def products(rows: Tensor, *adapters: Tensor) -> tuple[Tensor, ...]:
        pairs = zip(adapters[::2], adapters[1::2])
        return frugal.adapted(rows, *(AdaptedMatrix(w, *pair, s) for w, pair, s in zip(weights, pairs, scalings)))

    found = products(rows, *adapters)
    assert len(found) == n_matrices
    for product, weight, down, up, scaling in zip(found, weights, adapters[::2], adapters[1::2], scalings):
        torch.testing.assert_close(product, rows @ weight.T + scaling * (rows @ down.T) @ up.T)
    assert torch.autograd.gradcheck(products, (rows, *adapters))
    # The gradient of the rows alone is not asked for where they come from a frozen embedding.
    frozen = products(rows.detach(), *adapters)
    torch.testing.assert_close(
        torch.autograd.grad(frozen[-1].sum(), adapters[-2:]), torch.autograd.grad(found[-1].sum(), adapters[-2:])
    )


def test_product_of_gated_rows() -> None:
    (gate, rows), (weight, down, up) = inputs()
    gated = functional.silu(gate) * rows
    expected = gated @ weight.T + 0.5 * (gated @ down.T) @ up.T
    torch.testing.assert_close(frugal.gated_adapted(gate, rows, AdaptedMatrix(weight, down, up, 0.5)), expected)

    def product(gate: Tensor, rows: Tensor, down: Tensor, up: Tensor) -> Tensor:
        return frugal.gated_adapted(gate, rows, AdaptedMatrix(weight, down, up, 0.5))

    assert torch.autograd.gradcheck(product, (gate, rows, down, up))


@pytest.mark.parametrize("at_a_time", [1, 2, 100])
def test_loss_of_labels(at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frugal, "_LOGIT_ROWS", at_a_time)
    torch.manual_seed(0)
    hidden, weight = random(5, 6, wants_gradient=True), random(9, 6)
    # A row that two tokens follow, one of them twice; one that none follows; one token after two rows.
    of, tokens = torch.tensor([0, 0, 1, 2, 4]), torch.tensor([3, 8, 3, 0, 5])
    counts = torch.tensor([1.0, 2.0, 1.0, 0.5, 3.0])

    def loss(hidden: Tensor) -> Tensor:
        return frugal.label_loss(hidden, weight, of, tokens, counts)

    one_by_one = functional.cross_entropy(hidden[of] @ weight.T, tokens, reduction="none")
    torch.testing.assert_close(loss(hidden), one_by_one @ counts.double())
    assert torch.autograd.gradcheck(loss, (hidden,))
    (once,), (thrice,) = (torch.autograd.grad(factor * loss(hidden), hidden) for factor in (1, 3))
    torch.testing.assert_close(thrice, 3 * once)
    with torch.no_grad():
        torch.testing.assert_close(loss(hidden), one_by_one @ counts.double())


def test_norm() -> None:
    (rows, _), _ = inputs()
    weight = random(6)
    torch.testing.assert_close(frugal.rms_norm(rows, weight, 1e-5), functional.rms_norm(rows, (6,), weight, 1e-5))
    assert torch.autograd.gradcheck(lambda rows: frugal.rms_norm(rows, weight, 1e-5), (rows,))


def test_norm_is_as_exact_in_half_precision() -> None:
    torch.manual_seed(0)
    rows, weight, gradient = torch.randn(40, 64), torch.randn(64), torch.randn(40, 64)

    def of_rows(norm: Callable[..., Tensor], dtype: torch.dtype) -> Tensor:
        given = rows.to(torch.bfloat16).to(dtype).requires_grad_()
        norm(given, weight.to(torch.bfloat16).to(dtype)).backward(gradient.to(torch.bfloat16).to(dtype))
        assert given.grad is not None
        return given.grad.double()

    def stock(rows: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(rows, rows.shape[-1:], weight, 1e-5)

    exact = of_rows(stock, torch.float64)
    errors = [
        (of_rows(norm, torch.bfloat16) - exact).square().mean().sqrt().item()
        for norm in (lambda rows, weight: frugal.rms_norm(rows, weight, 1e-5), stock)
    ]
    assert errors[0] <= 1.1 * errors[1]


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("n_kv", [1, 2, 4])
def test_attention_of_blocks(n_kv: int, keeps: bool) -> None:
    """Blocks of two queries and of one, some padded, to keys that blocks share; against one query at a time."""
    torch.manual_seed(0)
    query = random(4, 5, 3, wants_gradient=True)
    keys, values = random(n_kv, 5, 3, wants_gradient=True), random(n_kv, 5, 3, wants_gradient=True)
    seen: dict[int, list[int]] = {0: [0], 1: [0, 1], 2: [0, 4], 3: [1, 2, 3], 4: [0, 2, 3, 4]}
    wide = blocks_of([[0, 1], [2, 0]], [[0, 1, 2], [0, 3, 4]], seen, padded={(1, 1)})
    narrow = blocks_of([[4], [3]], [[0, 2, 3, 4], [1, 2, 3, 0]], seen)
    slot = torch.tensor([0, 1, 2, 5, 4, 0])  # the last row is padding

    answers = attended(query, keys, values, [wide, narrow], slot, keeps=keeps)
    assert answers.shape == (6, 4, 3)
    for node, of_node in seen.items():
        for head in range(4):
            own = head * n_kv // 4
            weights = torch.softmax(keys[own, of_node] @ query[head, node], dim=0)
            torch.testing.assert_close(answers[node, head], weights @ values[own, of_node], msg=f"{node} {head}")

    def of_nodes(*given: Tensor) -> Tensor:
        return attended(*given, [wide, narrow], slot, keeps=keeps)[:5]

    assert torch.autograd.gradcheck(of_nodes, (query, keys, values))


def blocks_of(
    queries: list[list[int]],
    keys: list[list[int]],
    seen: dict[int, list[int]],
    padded: Collection[tuple[int, int]] = (),
) -> Blocks:
    """Blocks whose queries see of their block's keys those that their node sees; a padded query sees all."""
    sees = [
        [[(i, j) in padded or key in seen[node] for key in keys[i]] for j, node in enumerate(block)]
        for i, block in enumerate(queries)
    ]
    bias = torch.zeros(torch.tensor(sees).shape, dtype=torch.float64)
    return Blocks(torch.tensor(queries), torch.tensor(keys), bias.masked_fill(~torch.tensor(sees), float("-inf")))


def test_a_layer_keeps_nothing_that_is_cheap_to_compute_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_KEPT_WEIGHTS", 0)  # as if the pack were large
    model: Any = tiny_llama().model
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=8, target_modules=PROJECTIONS), model)
    model.to(torch.bfloat16)
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # held, or another would come to lie in its place

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.is_floating_point() and storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    tree = prefix_tree.build(TAILS)
    plan = packing.plan_tree(tree)
    ids, positions = torch.from_numpy(tree.ids), torch.from_numpy(tree.depth)
    of_pack = attention.PackAttention(plan, torch.device("cpu"), None)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        decoder.forward(model, ids, positions, of_pack)
    hidden, key_values, inner, rank, n_layers, head = 32, 16, 48, 4, 3, 8
    # The inputs of two norms (not of the first of all, which nothing learns from, but of the last), what they make;
    # queries, keys, values and the answer; both factors of the gate; each adapter's rows A'; the norms' factors.
    of_layer = 2 * hidden + 2 * hidden + 2 * hidden + 2 * key_values + 2 * inner + len(PROJECTIONS) * rank + 2 * 2
    n_rows = packing.padded(len(tree))
    factors = 4 * n_rows * head  # sines and cosines of queries and keys, for all layers
    biases = sum(bucket.mask.size for bucket in plan.buckets)
    assert sum(storage.nbytes() for storage in kept.values()) == 2 * (n_layers * n_rows * of_layer + factors + biases)


@pytest.mark.parametrize("padding", [0, 5])
def test_an_adapter_learns_by_the_right_gradients(padding: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient along a random direction, against the differences of a small step to both sides."""
    monkeypatch.setattr(decoder, "_n_rows", lambda n_nodes, _: n_nodes + padding)
    model: Any = tiny_llama().model
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=8, target_modules=PROJECTIONS), model)
    model.double()
    torch.manual_seed(1)
    adapter = [parameter for name, parameter in model.named_parameters() if "lora" in name]
    for parameter in adapter:
        torch.nn.init.normal_(parameter, std=0.2)
    tree = prefix_tree.build(TAILS)
    ids, positions = torch.from_numpy(tree.ids), torch.from_numpy(tree.depth)
    weights = torch.randn(len(tree), model.config.hidden_size, dtype=torch.float64)

    def loss() -> Tensor:
        of_pack = attention.PackAttention(packing.plan_tree(tree), torch.device("cpu"), None)
        return (decoder.forward(model, ids, positions, of_pack) * weights).sum()

    loss().backward()
    direction = [torch.randn_like(parameter) for parameter in adapter]
    by_gradient = sum(float((parameter.grad * step).sum()) for parameter, step in zip(adapter, direction))
    moved = []
    for size in (1e-6, -1e-6):
        with torch.no_grad():
            for parameter, step in zip(adapter, direction):
                parameter.add_(step, alpha=size)
            moved.append(float(loss()))
            for parameter, step in zip(adapter, direction):
                parameter.sub_(step, alpha=size)
    assert by_gradient == pytest.approx((moved[0] - moved[1]) / 2e-6, rel=1e-5)
