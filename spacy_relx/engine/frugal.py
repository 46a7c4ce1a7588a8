"""Steps of a decoder layer that keep little for the way back: what is cheap to compute again is computed again.

Between a forward and a backward pass all that the operations of all layers have kept is alive at once; on a processor
that, not the weights, is most of the memory that training takes. Matrices and norms are frozen, a LoRA adapter beside
some of them: no gradient of a frozen one is computed. Without gradients, all this is plain arithmetic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Rows whose logits are computed at a time: 25 MB in float32 for 49,152 tokens.
_LOGIT_ROWS = 128


class AdaptedMatrix(NamedTuple):
    """A frozen matrix W with an adapter beside it.

    Attributes:
        weight: W. Shape: (n_outputs, n_inputs)
        down: A. Shape: (rank, n_inputs)
        up: B. Shape: (n_outputs, rank)
        scaling: s.
    """

    weight: Tensor
    down: Tensor
    up: Tensor
    scaling: float


def adapted(rows: Tensor, *matrices: AdaptedMatrix) -> tuple[Tensor, ...]:
    """The products of the same rows with several adapted matrices: rows W' + s (rows A') B'.

    Those of one rank are thin, and a thin product takes a processor longer than its arithmetic: the A of all matrices
    are multiplied as one, and the gradients of the rows are added up within the products that give them.

    Args:
        rows: Shape: (n_rows, n_inputs)
        matrices: At least one.

    Returns:
        For each matrix: shape (n_rows, n_outputs)
    """
    tensors = [tensor for matrix in matrices for tensor in matrix[:3]]
    scalings = tuple(matrix.scaling for matrix in matrices)
    return cast("tuple[Tensor, ...]", _Adapted.apply(rows, scalings, *tensors))  # type: ignore[no-untyped-call]


def gated_adapted(gate: Tensor, rows: Tensor, matrix: AdaptedMatrix) -> Tensor:
    """The same of silu(gate) * rows, of which nothing but the two factors is kept. Shape of gate: that of rows."""
    return cast("Tensor", _GatedAdapted.apply(gate, rows, *matrix))  # type: ignore[no-untyped-call]


def label_loss(hidden: Tensor, weight: Tensor, of: Tensor, tokens: Tensor, counts: Tensor) -> Tensor:
    """Cross-entropy of tokens after hidden states, summed with weights, over the rows of a frozen output matrix.

    Logits are a wide matrix, the widest there is in a model with many tokens: nothing of it is kept. The gradient is
    computed with the loss, some rows at a time, each pass over the logits made in place.

    Args:
        hidden: Shape: (n_rows, hidden_size)
        weight: Shape: (vocabulary, hidden_size)
        of: The row that each token follows. Shape: (n_tokens,)
        tokens: Shape: (n_tokens,)
        counts: How often each counts. Shape: (n_tokens,)

    Returns:
        Shape: (), at least float32
    """
    return cast("Tensor", _LabelLoss.apply(hidden, weight, of, tokens, counts))  # type: ignore[no-untyped-call]


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Sum states * cos and (states with the halves of the last dimension exchanged) * sin; the factors are kept alone.

    Args:
        states: Shape: (n_nodes, n_heads, head_size)
        cos: Shape: (n_nodes, 1, head_size)
        sin: Shape: (n_nodes, 1, head_size)
    """
    if not torch.is_grad_enabled():
        return _rotated(states, cos, sin)
    return cast("Tensor", _Rotated.apply(states, cos, sin))  # type: ignore[no-untyped-call]


def rms_norm(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """`torch.nn.functional.rms_norm` over the last dimension, by a frozen weight.

    Torch's own makes twice as many passes over the rows on a processor, and keeps a float32 copy of them; this keeps
    the rows.
    """
    if not torch.is_grad_enabled():
        return _normed(hidden, weight, epsilon)[0]
    return cast("Tensor", _RMSNorm.apply(hidden, weight, epsilon))  # type: ignore[no-untyped-call]


class _Adapted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, scalings: tuple[float, ...], *tensors: Tensor) -> tuple[Tensor, ...]:
        matrices = _matrices(tensors, scalings)
        low = functional.linear(rows, _joined([matrix.down for matrix in matrices], 0))
        _scale(low, matrices)
        ctx.save_for_backward(rows, low, *tensors)
        ctx.scalings = scalings
        return tuple(
            functional.linear(rows, matrix.weight).addmm_(part, matrix.up.T)
            for matrix, part in zip(matrices, _parts(low, matrices))
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, low, *tensors = ctx.saved_tensors
        matrices = _matrices(tensors, ctx.scalings)
        of_low = _joined([gradient @ matrix.up for matrix, gradient in zip(matrices, gradients)], 1)
        _scale(of_low, matrices)
        of_rows = None
        if ctx.needs_input_grad[0]:
            of_rows = gradients[0] @ matrices[0].weight
            for matrix, gradient in zip(matrices[1:], gradients[1:]):
                of_rows.addmm_(gradient, matrix.weight)
            of_rows.addmm_(of_low, _joined([matrix.down for matrix in matrices], 0))
        of_down = (of_low.T @ rows).split([len(matrix.down) for matrix in matrices])
        of_tensors: list[Tensor | None] = []
        for gradient, of_a, part in zip(gradients, of_down, _parts(low, matrices)):
            of_tensors += [None, of_a, gradient.T @ part]
        return of_rows, None, *of_tensors


class _GatedAdapted(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gate: Tensor, rows: Tensor, weight: Tensor, down: Tensor, up: Tensor, scaling: float
    ) -> Tensor:
        gated = functional.silu(gate).mul_(rows)
        low = functional.linear(gated, down).mul_(scaling)
        ctx.save_for_backward(gate, rows, low, weight, down, up)
        ctx.scaling = scaling
        return functional.linear(gated, weight).addmm_(low, up.T)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gate, rows, low, weight, down, up = ctx.saved_tensors
        activated = functional.silu(gate)
        of_low = (gradient @ up).mul_(ctx.scaling)
        wide = activated * rows
        of_down, of_up = of_low.T @ wide, gradient.T @ low
        of_gated = (gradient @ weight).addmm_(of_low, down)
        # Memory that was just written is several times faster to write than other memory.
        torch.mul(of_gated, rows, out=wide)
        torch.ops.aten.silu_backward.grad_input(wide, gate, grad_input=wide)
        return wide, of_gated.mul_(activated), None, of_down, of_up, None


def _matrices(tensors: Sequence[Tensor], scalings: tuple[float, ...]) -> list[AdaptedMatrix]:
    """What `adapted` was given, from the tensors one after the other."""
    groups = zip(tensors[::3], tensors[1::3], tensors[2::3], scalings)
    return [AdaptedMatrix(*group) for group in groups]


def _scale(low: Tensor, matrices: Sequence[AdaptedMatrix]) -> None:
    """Multiply the columns of each matrix by its scaling: the narrowest place to do it."""
    if len({matrix.scaling for matrix in matrices}) == 1:
        low.mul_(matrices[0].scaling)
        return
    for matrix, part in zip(matrices, _parts(low, matrices)):
        part.mul_(matrix.scaling)


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return torch.cat(parts, dim) if len(parts) > 1 else parts[0]


def _parts(low: Tensor, matrices: Sequence[AdaptedMatrix]) -> tuple[Tensor, ...]:
    """The columns of each matrix among those of all A."""
    return torch.split(low, [len(matrix.down) for matrix in matrices], dim=1)


class _LabelLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, of: Tensor, tokens: Tensor, counts: Tensor) -> Tensor:
        exact = torch.promote_types(hidden.dtype, torch.float32)
        counts = counts.to(exact)
        n_rows = len(hidden)
        weight_of_row = counts.new_zeros(n_rows).index_add_(0, of, counts)
        loss = counts.new_zeros(())
        of_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for first in range(0, n_rows, _LOGIT_ROWS):
            rows = slice(first, first + _LOGIT_ROWS)
            scores = functional.linear(hidden[rows], weight).to(exact).log_softmax(-1)
            # Tokens of other rows count nothing; to pick this part's own, a GPU would have to be waited for.
            number = counts * ((of >= first) & (of < first + len(scores)))
            at = ((of - first).clamp(0, len(scores) - 1), tokens)
            loss -= torch.dot(scores[at], number)
            if of_hidden is not None:
                of_scores = scores.exp_().mul_(weight_of_row[rows, None])
                of_scores.index_put_(at, -number, accumulate=True)
                torch.mm(of_scores.to(weight.dtype), weight, out=of_hidden[rows])
        ctx.of_hidden = of_hidden
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.of_hidden * gradient, None, None, None, None


class _Rotated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(states, cos, sin)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotated(gradient, cos, _exchanged(sin)), None, None


def _rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.addcmul(states * cos, _exchanged(states), sin)


def _exchanged(states: Tensor) -> Tensor:
    return states.roll(states.shape[-1] // 2, -1)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        result, scale = _normed(hidden, weight, epsilon)
        ctx.save_for_backward(hidden, weight, scale)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        hidden, weight, scale = ctx.saved_tensors
        exact, of_normed = hidden.to(scale.dtype), gradient.to(scale.dtype) * weight
        # With y = s x w and s = (mean(x^2) + e)^(-1/2): dx = s (g w - s^2 mean(g w x) x)
        along = (of_normed * exact).mean(-1, keepdim=True).mul_(scale.square())
        return of_normed.addcmul_(exact, along, value=-1).mul_(scale).to(hidden.dtype), None, None


def _normed(hidden: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The normed rows, and the factor of each, in at least float32. Shapes: (n_rows, size), (n_rows, 1)."""
    exact = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    norm = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
    scale = norm.square_().div_(hidden.shape[-1]).add_(epsilon).rsqrt_()
    if exact is hidden:  # nothing of the input is overwritten
        return (exact * scale).mul_(weight), scale
    return exact.mul_(scale).mul_(weight).to(hidden.dtype), scale
