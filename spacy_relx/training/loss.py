"""The loss of a pack: cross-entropy on the label tokens and the terminal, summed over rows."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from spacy_relx.engine import decoder
from spacy_relx.engine.attention import make_attention, own_forward
from spacy_relx.engine.frugal import label_loss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spacy_relx.training.packs import TrainPack


def pack_loss(model: Any, pack: TrainPack, *, recompute: bool = False) -> Tensor:
    """Run a pack through the model and return the summed loss of its label tokens.

    Every row attends to its own tokens alone and stands at its own positions, so the sum is that of the rows one by
    one. Dividing it by the number of label tokens of the whole optimiser step gives the mean loss.

    Args:
        model: A transformers causal language model with the pack attention installed.
        pack: The rows.
        recompute: Whether of each layer its input alone is kept, and the layer computed again for its gradient.

    Returns:
        Shape: (), float32
    """
    device = model.get_input_embeddings().weight.device

    def to_device(array: Any) -> Tensor:
        return torch.from_numpy(array).to(device)

    tree = pack.tree
    attention = make_attention(pack.plan, device)
    nodes = (to_device(tree.ids), to_device(tree.depth))
    predictors = to_device(pack.predictors)
    if decoder.is_stock(model):
        hidden = decoder.forward(model, *nodes, attention, predictors, recompute=recompute)
    else:
        with recomputed_layers(model) if recompute else nullcontext():
            hidden = own_forward(model, *nodes, attention).index_select(0, predictors)
    of, tokens = to_device(pack.of), to_device(pack.tokens)
    output = model.get_output_embeddings()
    if decoder.is_plain(output) and not output.weight.requires_grad:
        return label_loss(hidden, output.weight, of, tokens, to_device(pack.counts))
    logits = output(hidden).float()
    losses = torch.logsumexp(logits, dim=-1)[of] - logits[of, tokens]
    return torch.dot(losses, to_device(pack.counts))


@contextmanager
def recomputed_layers(model: Any) -> Iterator[None]:
    """Keep of each decoder layer its input alone, and compute the layer again when its gradient is asked for.

    Stands in for what transformers has under names that change between its versions, and leaves no hook behind.

    Args:
        model: A transformers causal language model; forward and backward pass are both within the block.
    """
    layers = list(model.get_decoder().layers)
    own = [vars(layer).get("forward") for layer in layers]  # accelerate puts one on a layer now and then
    try:
        for layer in layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        yield
    finally:
        for layer, forward in zip(layers, own):
            if forward is not None:
                layer.forward = forward
            else:
                vars(layer).pop("forward", None)
