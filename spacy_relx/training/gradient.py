"""One optimiser step's gradient, from any number of packs."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import torch

from spacy_relx.engine import decoder
from spacy_relx.engine.attention import install
from spacy_relx.engine.halving import in_halves
from spacy_relx.engine.workers import prepare_worker
from spacy_relx.errors import TrainingError
from spacy_relx.training.loss import pack_loss
from spacy_relx.training.packs import make_pack, make_packs, split_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from spacy_relx.engine.loading import LoadedModel
    from spacy_relx.training.encode import TrainRow
    from spacy_relx.training.lora import LoraWeights
    from spacy_relx.training.packs import TrainPack

#: Tokens of one forward and backward pass; activations of all layers are kept, so packs are smaller than in inference.
DEFAULT_PACK_TOKENS = {"cpu": 2048, "cuda": 4096, "mps": 1024}


_ADVICE = (
    "One training row alone does not fit into memory. Set gradient_checkpointing, shorten its text (the `window` of "
    "the candidates) or the label list, or use quantization='nf4'."
)


class GradientStep:
    """Adds up the gradients of rows until an optimiser takes them.

    The loss of a step is the sum over its label tokens divided by their number, however the rows were packed or in how
    many parts they came.

    Args:
        loaded: The model.
        weights: Its trainable matrices.
        max_pack_tokens: Most tokens of one pass, which bounds the memory; None: by device.
        gradient_checkpointing: Whether a layer is computed again on the way back instead of kept; the gradients are
            the same.

    Attributes:
        n_rows: Rows added since the last step.
        n_label_tokens: Their label tokens and terminals.
        n_tokens: Tokens that went through the model for them.
        n_packs: Passes that took.
        norm: Euclidean norm of the last finished gradient.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        weights: LoraWeights,
        max_pack_tokens: int | None = None,
        *,
        gradient_checkpointing: bool = False,
    ) -> None:
        self._model = loaded.model
        self._weights = weights
        self._is_quantised = loaded.spec.quantization != "none"
        self._recomputes = gradient_checkpointing
        self.max_pack_tokens = max_pack_tokens or DEFAULT_PACK_TOKENS.get(loaded.device.type, 1024)
        self._device = loaded.device
        self.norm = 0.0
        install(loaded.model)
        self.reset()

    def reset(self) -> None:
        """Forget what was added."""
        self.n_rows = self.n_label_tokens = self.n_tokens = self.n_packs = 0
        self._loss = 0.0
        self._weights.clear_gradients()

    def loss(self, rows: Sequence[TrainRow]) -> tuple[float, int]:
        """The summed loss of some rows, without dropout, and the number of their label tokens; nothing is added."""
        prepare_worker(self._device.type)
        total, n_label_tokens = 0.0, 0
        with torch.no_grad():
            for pack in make_packs(rows, self.max_pack_tokens):
                total += float(pack_loss(self._model, pack))
                n_label_tokens += pack.n_label_tokens
        return total, n_label_tokens

    def add(self, rows: Sequence[TrainRow]) -> float:
        """Add the gradient of some rows.

        Returns:
            The summed loss of their label tokens.

        Raises:
            TrainingError: If the loss is not finite; what was added since the last step is then forgotten.
            PackBudgetError: If a row exceeds the pack budget, or does not fit into memory alone.
        """
        return self.add_packs((part, make_pack(part)) for part in split_rows(rows, self.max_pack_tokens))

    def add_packs(self, packs: Iterable[tuple[Sequence[TrainRow], TrainPack]]) -> float:
        """Add the gradient of rows that are packed already, as `add` packs them; see there."""
        prepare_worker(self._device.type)
        total = 0.0
        # Setting a mode visits all modules, which takes as long as some matrix products.
        has_modes = self._weights.drops or self._is_quantised or not decoder.is_stock(self._model)
        if has_modes:
            self._model.train()
        try:
            for rows, pack in packs:
                add = partial(self._add_rows, whole=rows, pack=pack)
                total += sum(in_halves(rows, add, self._weights.drop_gradients, _ADVICE))
        except BaseException:
            # What was added of these rows would weigh on the next step.
            self._weights.drop_gradients()
            self.reset()
            raise
        finally:
            if has_modes:
                self._model.eval()
        self._loss += total
        return total

    def _add_rows(self, rows: Sequence[TrainRow], *, whole: Sequence[TrainRow], pack: TrainPack) -> float:
        """Add one pack: the one given, or where there was no memory for it, one of a part of its rows."""
        if rows is not whole:
            pack = make_pack(rows)
        with torch.enable_grad():
            loss = pack_loss(self._model, pack, recompute=self._recomputes)
            loss.backward()  # type: ignore[no-untyped-call]
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"The loss of a pack of {pack.n_rows} rows is {value}. Expected a finite number. Lower the learning "
                "rate, or use dtype='bfloat16' or 'float32'; the last checkpoint is intact."
            )
        self._weights.take_gradients()
        self.n_rows += pack.n_rows
        self.n_label_tokens += pack.n_label_tokens
        self.n_tokens += len(pack.tree)
        self.n_packs += 1
        return value

    def finish(self) -> float:
        """Divide the added gradients by the number of label tokens, for the optimiser to take.

        Returns:
            The mean loss of a label token; 0.0 if nothing was added.

        Raises:
            TrainingError: If the gradient is not finite; the weights are as they were.
        """
        if not self.n_label_tokens:
            return 0.0
        self.norm = float(self._weights.gradient.div_(self.n_label_tokens).norm())
        if not math.isfinite(self.norm):
            self.reset()
            raise TrainingError(
                f"The norm of the gradient is {self.norm}. Expected a finite number. Lower the learning rate, or use "
                "dtype='bfloat16' or 'float32'; the last checkpoint is intact."
            )
        return self._loss / self.n_label_tokens
