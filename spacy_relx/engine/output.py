"""From hidden states to the logits that are needed: the rows of the output matrix, in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spacy_relx.errors import ModelError

if TYPE_CHECKING:
    from spacy_relx.engine.search import FloatArray
    from spacy_relx.engine.types import TokenIds

#: Rows of the output matrix that are brought to float32 at a time: the whole matrix of a 3B model would be 1.6 GB.
_CHUNK_ROWS = 16384


class OutputHead:
    """The output matrix of a causal language model.

    Args:
        model: A transformers causal language model.

    Raises:
        ModelError: If the output layer is no plain matrix, or the model changes its logits afterwards (soft-capping,
            scaling).
    """

    def __init__(self, model: Any) -> None:
        layer: Any = model.get_output_embeddings()
        # Rows of the matrix are read one by one. A quantised matrix has no rows to read, and a LoRA layer adds to what
        # its rows say.
        plain = type(layer) is torch.nn.Linear
        if not plain or layer.bias is not None:
            raise ModelError(
                f"{type(model).__name__} has the output layer {type(layer).__name__}, which cannot be read row by row. "
                "Expected a plain matrix; merge the adapter, leave lm_head out of its target modules, or leave it "
                "out of the quantisation."
            )
        for name, neutral in (("final_logit_softcapping", None), ("logits_scaling", 1), ("logit_scale", 1)):
            if getattr(model.config, name, neutral) not in (neutral, None):
                raise ModelError(
                    f"{type(model).__name__} changes its logits by `{name}`, which is not supported. Use a model of "
                    "the Llama, Mistral, Qwen or SmolLM families."
                )
        self._layer: Any = layer
        self._rows: dict[TokenIds, Tensor] = {}

    def forget(self) -> None:
        """Drop what was read from the weights."""
        self._rows.clear()

    def logits(self, hidden: Tensor, tokens: TokenIds, normalise: bool) -> tuple[FloatArray, FloatArray | None]:
        """Logits of some tokens, and the log-sum-exp over the vocabulary if asked for.

        Args:
            hidden: Shape: (n_rows, hidden_size)
            tokens: Which tokens.
            normalise: Whether the log-sum-exp is wanted.

        Returns:
            Shapes: (n_rows, n_tokens), (n_rows,)
        """
        hidden = hidden.float()
        if tokens not in self._rows:
            if len(self._rows) > 16:
                self._rows.clear()
            index = torch.tensor(tokens, device=self._layer.weight.device)
            self._rows[tokens] = self._layer.weight[index].float()
        wanted = (hidden @ self._rows[tokens].T).cpu().numpy()
        norms = self._log_sum_exp(hidden).cpu().numpy() if normalise else None
        return wanted, norms

    def greedy(self, hidden: Tensor) -> tuple[list[int], list[float]]:
        """The most probable next token of each row and its log-probability; hidden: (n_rows, hidden_size)."""
        hidden = hidden.float()
        values = torch.full((len(hidden),), float("-inf"), device=hidden.device)
        tokens = torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)
        norm = torch.full_like(values, float("-inf"))
        for first, chunk in self._chunks(hidden):
            top, at = chunk.max(dim=1)
            better = top > values
            tokens = torch.where(better, at + first, tokens)
            values = torch.maximum(values, top)
            norm = torch.logaddexp(norm, chunk.logsumexp(dim=1))
        return tokens.tolist(), (values - norm).tolist()

    def _log_sum_exp(self, hidden: Tensor) -> Tensor:
        norm = torch.full((len(hidden),), float("-inf"), device=hidden.device)
        for _, chunk in self._chunks(hidden):
            norm = torch.logaddexp(norm, chunk.logsumexp(dim=1))
        return norm

    def _chunks(self, hidden: Tensor) -> Any:
        weight = self._layer.weight
        for first in range(0, len(weight), _CHUNK_ROWS):
            yield first, hidden @ weight[first : first + _CHUNK_ROWS].float().T
