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


def rms_norm(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """`torch.nn.functional.rms_norm` over the last dimension, by a frozen weight.

    Torch's own keeps a float32 copy of its input on a processor; this keeps the input.
    """
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


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        ctx.epsilon = epsilon
        return functional.rms_norm(hidden, hidden.shape[-1:], weight, epsilon)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        hidden, weight = ctx.saved_tensors
        exact = torch.promote_types(hidden.dtype, torch.float32)
        normed = hidden.to(exact)
        scale = normed.square().mean(-1, keepdim=True).add_(ctx.epsilon).rsqrt_()
        normed = normed * scale
        of_normed = gradient.to(exact) * weight
        along = (of_normed * normed).mean(-1, keepdim=True)
        return of_normed.addcmul_(normed, along, value=-1).mul_(scale).to(hidden.dtype), None, None
