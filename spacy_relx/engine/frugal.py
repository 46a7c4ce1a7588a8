"""Steps of a decoder layer that keep little for the way back: what is cheap to compute again is computed again.

Between a forward and a backward pass all that the operations of all layers have kept is alive at once; on a processor
that, not the weights, is most of the memory that training takes. Matrices and norms are frozen, a LoRA adapter beside
some of them: no gradient of a frozen one is computed. Without gradients, all this is plain arithmetic.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

#: Rows whose logits are computed at a time: 25 MB in float32 for 49,152 tokens.
_LOGIT_ROWS = 128


def adapted(rows: Tensor, weight: Tensor, down: Tensor, up: Tensor, scaling: float) -> Tensor:
    """A frozen matrix W with an adapter beside it: rows W' + s (rows A') B'.

    Args:
        rows: Shape: (n_rows, n_inputs)
        weight: W. Shape: (n_outputs, n_inputs)
        down: A. Shape: (rank, n_inputs)
        up: B. Shape: (n_outputs, rank)
        scaling: s.

    Returns:
        Shape: (n_rows, n_outputs)
    """
    return cast("Tensor", _Adapted.apply(rows, weight, down, up, scaling))  # type: ignore[no-untyped-call]


def gated_adapted(gate: Tensor, rows: Tensor, weight: Tensor, down: Tensor, up: Tensor, scaling: float) -> Tensor:
    """The same of silu(gate) * rows, of which nothing but the two factors is kept. Shape of gate: that of rows."""
    return cast("Tensor", _GatedAdapted.apply(gate, rows, weight, down, up, scaling))  # type: ignore[no-untyped-call]


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
    def forward(ctx: Any, rows: Tensor, weight: Tensor, down: Tensor, up: Tensor, scaling: float) -> Tensor:
        result, low = _product(rows, weight, down, up, scaling)
        ctx.save_for_backward(rows, weight, down, up, low)
        ctx.scaling = scaling
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, *matrices = ctx.saved_tensors
        of_rows, of_down, of_up = _product_backward(gradient, rows, matrices, ctx.scaling, ctx.needs_input_grad[0])
        return of_rows, None, of_down, of_up, None


class _GatedAdapted(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gate: Tensor, rows: Tensor, weight: Tensor, down: Tensor, up: Tensor, scaling: float
    ) -> Tensor:
        result, low = _product(functional.silu(gate).mul_(rows), weight, down, up, scaling)
        ctx.save_for_backward(gate, rows, weight, down, up, low)
        ctx.scaling = scaling
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gate, rows, *matrices = ctx.saved_tensors
        activated = functional.silu(gate)
        of_gated, of_down, of_up = _product_backward(gradient, activated * rows, matrices, ctx.scaling)
        assert of_gated is not None
        of_gate = torch.ops.aten.silu_backward(of_gated * rows, gate)
        return of_gate, of_gated.mul_(activated), None, of_down, of_up, None


def _product(rows: Tensor, weight: Tensor, down: Tensor, up: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    low = functional.linear(rows, down)
    return functional.linear(rows, weight).addmm_(low, up.T, alpha=scaling), low


def _product_backward(
    gradient: Tensor, rows: Tensor, matrices: list[Tensor], scaling: float, with_rows: bool = True
) -> tuple[Tensor | None, Tensor, Tensor]:
    """The gradients of rows, A and B; `matrices` are W, A, B and rows A'."""
    weight, down, up, low = matrices
    of_low = (gradient @ up).mul_(scaling)
    of_rows = (gradient @ weight).addmm_(of_low, down) if with_rows else None
    return of_rows, of_low.T @ rows, (gradient.T @ low).mul_(scaling)


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
