"""What the machine could do: the time that the model's matrix products alone would take, at the rate measured here.

limit = 2 * matrix parameters * distinct tokens / rate

The matrices are those of the decoder without the embedding; an adapter that stands beside them is left out, so that the
limit is the base's. A token is distinct if no other token of the same call has the same tokens before it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spacy_relx.engine import prefix_tree
from spacy_relx.engine.packing import split_by_budget

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import device as Device
    from torch import dtype as DType

    from spacy_relx.engine.types import Question

#: (out_features, in_features)
Shape = tuple[int, int]


def matrix_layers(model: Any) -> Iterator[tuple[str, Any]]:
    """The decoder's layers that multiply by a matrix, by name; of an adapted layer the whole, not its parts."""
    inside = ""
    for name, module in model.get_decoder().named_modules():
        if inside and name.startswith(inside):
            continue
        if hasattr(module, "in_features") and hasattr(module, "out_features"):
            inside = f"{name}."
            yield name, module


def matrix_shapes(model: Any) -> Counter[Shape]:
    """How many matrices of each shape a forward pass multiplies by."""
    return Counter((int(layer.out_features), int(layer.in_features)) for _, layer in matrix_layers(model))


def n_parameters(shapes: Mapping[Shape, int]) -> int:
    """Numbers in all matrices."""
    return sum(rows * columns * count for (rows, columns), count in shapes.items())


def limit_seconds(parameters: int, n_tokens: int, rate: float) -> float:
    """The limit of some work, in seconds.

    Args:
        parameters: Numbers in the matrices.
        n_tokens: Distinct tokens.
        rate: Floating-point operations a second; a multiplication and an addition are two.
    """
    return 2 * parameters * n_tokens / rate


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of some calls of an engine.

    Attributes:
        prompts: In all prompts, as if each were computed alone.
        distinct: Distinct ones after the shared run, which is kept from call to call.
        in_packs: The same, summed over the packs: a call that needs several packs repeats what they share.
    """

    prompts: int
    distinct: int
    in_packs: int


def count_tokens(calls: Iterable[Sequence[Question]], max_pack_tokens: int | None) -> Tokens:
    """Count the tokens of some calls, apart from any engine; None is a pack that holds everything."""
    prompts = distinct = in_packs = 0
    for questions in calls:
        all_ = [question.prompt for question in questions]
        if not all_:
            continue
        own = [prompt.ids[prompt.n_shared :] for prompt in all_]
        prompts += sum(len(prompt.ids) for prompt in all_)
        nodes = len(prefix_tree.build(own))
        distinct += nodes
        parts = list(split_by_budget(all_, max_pack_tokens or nodes))
        in_packs += sum(len(prefix_tree.build([own[i] for i in part])) for part in parts)
    return Tokens(prompts, distinct, in_packs)


class MatrixProducts:
    """One forward pass of nothing but matrix products, at a model's own shapes; calling it runs them once.

    Weights of one shape are one matrix, which the processor may keep in its caches: what is measured is the best rate
    there is, not that of reading the model.

    Args:
        shapes: How many matrices of each shape.
        n_rows: Tokens of the pass.
        dtype: Number format.
        device: Where.
    """

    def __init__(self, shapes: Mapping[Shape, int], n_rows: int, dtype: DType, device: Device) -> None:
        import torch

        self.n_rows = n_rows
        self.flop = 2 * n_parameters(shapes) * n_rows
        self._products = [
            (
                torch.randn(n_rows, columns, device=device).to(dtype),
                torch.randn(rows, columns, device=device).to(dtype),
                count,
            )
            for (rows, columns), count in shapes.items()
        ]

    def __call__(self) -> None:
        """Multiply."""
        import torch

        with torch.inference_mode():
            for rows, weight, count in self._products:
                for _ in range(count):
                    torch.nn.functional.linear(rows, weight)
