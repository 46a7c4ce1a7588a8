"""An engine's adapter in training: gradients in, an optimiser's steps out, and an engine that always knows them.

Speaks thinc's language of optimisers (arrays by key) without importing thinc.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from spacy_relx.engine.packed import PackedEngine
from spacy_relx.errors import TrainingError
from spacy_relx.training.encode import Encoder
from spacy_relx.training.gradient import GradientStep
from spacy_relx.training.lora import LoraWeights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from spacy_relx.training.rows import RowGroup
    from spacy_relx.training.settings import TrainingSettings


class TrainingSession:
    """Trains the adapter of an engine, which goes on answering.

    Args:
        engine: The engine; its adapter, if it has one, is not merged.
        settings: The adapter's shape and the pack budget.
        key: What the optimiser knows this adapter by, beside the names of its matrices.

    Raises:
        TrainingError: If the model cannot be trained on packs.
    """

    def __init__(self, engine: Any, settings: TrainingSettings, key: int) -> None:
        if not isinstance(engine, PackedEngine):
            raise TrainingError(
                f"The model {engine.loaded.spec.base!r} runs on the reference engine, one prompt at a time, and cannot "
                "be trained on packs. Use a model of the Llama, Mistral, Qwen or SmolLM families, and engine='packed'."
            )
        self._engine = engine
        self._key = key
        # thinc's optimisers work on arrays of the processor; its own for a GPU would need cupy.
        self.weights = LoraWeights(engine.loaded, settings.lora, seed=settings.seed, device=torch.device("cpu"))
        self.step = GradientStep(
            engine.loaded,
            self.weights,
            settings.max_pack_tokens,
            gradient_checkpointing=settings.gradient_checkpointing,
        )
        self.n_updates = 0
        # A calibrated threshold belongs to the adapter as it was.
        engine.loaded.adapter_info.get("metadata", {}).pop("threshold", None)
        engine.weights_changed()

    def encoder(self, template_kwargs: Mapping[str, Any]) -> Encoder:
        """What makes token ids of rows, none longer than a pack or the model's positions."""
        limit = getattr(self._engine.loaded.model.config, "max_position_embeddings", self.step.max_pack_tokens)
        return Encoder(self._engine.loaded.tokenizer, template_kwargs, min(limit, self.step.max_pack_tokens))

    def loss(self, encoder: Encoder, groups: Sequence[RowGroup]) -> tuple[float, int]:
        """The summed loss of some rows and the number of their label tokens; nothing is learned."""
        with self._engine.lock:
            return self.step.loss([row for group in groups for row in encoder(group)])

    def add(self, encoder: Encoder, groups: Sequence[RowGroup], dropout: float) -> tuple[float, int]:
        """Add the gradient of some rows; return the sum of their losses and the number of their label tokens."""
        before = self.step.n_label_tokens
        encoded = [row for group in groups for row in encoder(group)]
        with self._engine.lock:  # dropout is no business of other threads that ask
            self.weights.set_dropout(dropout)
            loss = self.step.add(encoded)
        return loss, self.step.n_label_tokens - before

    def finish_update(self, optimizer: Any) -> None:
        """Let a thinc optimiser change the adapter by the gradients that were added."""
        if not self.step.n_label_tokens:
            return
        self.step.finish()
        for name, master in self.weights.masters.items():
            assert master.grad is not None
            changed, _ = optimizer((self._key, name), master.numpy(), master.grad.numpy())
            master.copy_(torch.from_numpy(changed))
        self.n_updates += 1
        self.step.reset()
        self.put()

    @contextmanager
    def use_params(self, params: Mapping[Any, Any]) -> Iterator[None]:
        """Compute with an optimiser's averages of the adapter, for the block only."""
        values = {name: params.get((self._key, name)) for name in self.weights.masters}
        if any(value is None for value in values.values()):
            yield
            return
        self.put({name: torch.from_numpy(value) for name, value in values.items()})
        try:
            yield
        finally:
            self.put()

    def put(self, values: Mapping[str, Tensor] | None = None) -> None:
        """Make the engine compute with the adapter as it is now, or with other values."""
        with self._engine.lock:
            self.weights.write(values)
            self._engine.weights_changed()

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self._engine.device

    def key_of(self, name: str) -> tuple[int, str]:
        """What the optimiser knows a matrix by."""
        return self._key, name
