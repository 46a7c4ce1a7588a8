"""The loss of a pack: cross-entropy on the label tokens and the terminal, summed over rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spacy_relx.engine import packing
from spacy_relx.engine.attention import PackAttention, own_forward

if TYPE_CHECKING:
    from spacy_relx.training.packs import TrainPack


def pack_loss(model: Any, pack: TrainPack) -> Tensor:
    """Run a pack through the model and return the summed loss of its label tokens.

    Every row attends to its own tokens alone and stands at its own positions, so the sum is that of the rows one by
    one. Dividing it by the number of label tokens of the whole optimiser step gives the mean loss.

    Args:
        model: A transformers causal language model with the pack attention installed.
        pack: The rows.

    Returns:
        Shape: (), float32
    """
    device = model.get_input_embeddings().weight.device

    def to_device(array: Any) -> Tensor:
        return torch.from_numpy(array).to(device)

    tree = pack.tree
    attention = PackAttention(packing.plan_tree(tree), device, None, None)
    hidden = own_forward(model, to_device(tree.ids), to_device(tree.depth), attention)
    hidden = hidden.index_select(0, to_device(pack.predictors))
    logits = model.get_output_embeddings()(hidden).float()
    of, tokens = to_device(pack.of), to_device(pack.tokens)
    losses = torch.logsumexp(logits, dim=-1)[of] - logits[of, tokens]
    return torch.dot(losses, to_device(pack.counts))
