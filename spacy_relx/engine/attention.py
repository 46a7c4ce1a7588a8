"""Attention over a pack: the plan of `packing` carried out in torch, and the keys and values that are kept.

By plain matrix products (`blocks`), the fastest way on a processor; `fused` does the same on a GPU. Registered with
transformers as one more attention implementation, so that the layers of any Llama-family model call it with their own
projections and rotary positions. Without a pack it is the stock scaled-dot-product attention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from spacy_relx.engine.blocks import Blocks, answered, answered_below, attended
from spacy_relx.engine.fused import FusedAttention, FusedStore
from spacy_relx.engine.store import Store

if TYPE_CHECKING:
    from spacy_relx.engine.packing import AttentionPlan

#: The name under which transformers knows this attention.
NAME = "spacy_relx_pack"


#: Weights a head that are kept for the way back, at most; a pack with more computes them again, which takes some 5 % of
#: a training step on a processor, and keeps memory from growing with the length of prompts.
_KEPT_WEIGHTS = 1 << 18

#: Queries of a block from which on it is faster to gather the shared run with its keys than to join and to cut scores.
_WIDE_BLOCK = 16


class KeyValueStore(Store):
    """Keys and values as `PackAttention` wants them: (n_key_value_heads, n_shared + capacity, head_size)."""

    axis = 1
    growth = 1.5


class PackAttention:
    """The attention of one forward pass.

    Args:
        plan: Who attends to whom among the nodes of the pack.
        device: Where the model computes.
        store: Where the nodes' keys and values are kept, behind those of the shared run; None if they are this pass's
            own (training).
    """

    def __init__(self, plan: AttentionPlan, device: torch.device, store: KeyValueStore | None) -> None:
        def to_device(array: Any) -> Tensor:
            return torch.from_numpy(array).to(device, non_blocking=True)

        self._buckets = [(to_device(b.queries), to_device(b.keys), to_device(~b.mask)) for b in plan.buckets]
        self._keeps = sum(b.mask.size for b in plan.buckets) <= _KEPT_WEIGHTS
        self._blocks: list[Blocks] = []
        self._slot = to_device(plan.slot)
        self._store = store

    def widen(self, n_rows: int) -> None:
        """Have `attend` return so many rows; those behind the queries' answers are padding."""
        padding = self._slot.new_zeros(n_rows - len(self._slot))
        self._slot = torch.cat((self._slot, padding))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Answer the queries of one layer.

        Args:
            layer: Index of the layer.
            query: Shape: (1, n_heads, n_queries, head_size)
            key: Shape: (1, n_key_value_heads, n_queries, head_size)
            value: Shape: (1, n_key_value_heads, n_queries, head_size)
            scaling: Factor of the scores.

        Returns:
            Shape: (1, n_queries, n_heads, head_size)
        """
        keys, values = key[0], value[0]
        scaled = query[0] if scaling == 1 else query[0] * scaling
        if self._store is None:
            groups = self._blocks_of(query, 0)
            return attended(scaled, keys, values, groups, self._slot, keeps=self._keeps).unsqueeze(0)
        keys, values = self._store.write(layer, keys, values)
        n_shared = self._store.n_shared
        shared = self._store.shared.layer(layer) if self._store.shared is not None else None
        outputs = []
        for blocks in self._blocks_of(query, n_shared):
            if shared is None or blocks.keys.shape[1] > blocks.bias.shape[2]:
                outputs.append(answered(scaled, keys, values, blocks))
            else:
                outputs.append(answered_below(shared, scaled, keys[:, n_shared:], values[:, n_shared:], blocks))
        return torch.cat(outputs).index_select(0, self._slot).unsqueeze(0)

    def _blocks_of(self, query: Tensor, n_shared: int) -> list[Blocks]:
        """The blocks of each bucket, with what is added to their scores in the type that they are computed in.

        A sum is several times faster than a masked fill with a broadcast mask, and has nothing to do on the way back.
        The keys of wide blocks begin with the shared run; narrow ones are multiplied by it in one piece.
        """
        if not self._blocks:
            run = torch.arange(n_shared, device=query.device)
            for queries, keys, hidden in self._buckets:
                bias = torch.zeros(hidden.shape, dtype=query.dtype, device=query.device)
                if queries.shape[1] >= _WIDE_BLOCK:
                    keys = torch.cat((run.expand(len(keys), -1), keys + n_shared), dim=1)
                self._blocks.append(Blocks(queries, keys, bias.masked_fill_(hidden, float("-inf"))))
        return self._blocks


#: What answers queries on one kind of device or the other.
Attention: TypeAlias = PackAttention | FusedAttention


def is_fused(device: torch.device) -> bool:
    """Whether `fused` is the faster way on a device."""
    return device.type == "cuda"


def make_store(device: torch.device, capacity: int, shared: Store | None = None) -> Store:
    """Room for the keys and values of a pack's nodes.

    Args:
        device: Where the model computes.
        capacity: Nodes that there is room for; more come in as they are needed.
        shared: Keys and values of the run that every query sees, or None.
    """
    return FusedStore(capacity, shared) if is_fused(device) else KeyValueStore(capacity, shared)


def make_attention(plan: AttentionPlan, device: torch.device, store: Store | None = None) -> Attention:
    """The attention of one forward pass.

    Args:
        plan: Who attends to whom among the nodes of the pack.
        device: Where the model computes.
        store: Where the nodes' keys and values are kept, behind those of a shared run; None if they are this pass's own
            (training).
    """
    if isinstance(store, FusedStore) or (store is None and is_fused(device)):
        return FusedAttention(plan, device, store)
    assert store is None or isinstance(store, KeyValueStore)
    return PackAttention(plan, device, store)


def _attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    relx_pack: Attention | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    if relx_pack is None:
        output: tuple[Tensor, Tensor | None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return output
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return relx_pack.attend(int(module.layer_idx), query, key, value, scale), None  # type: ignore[arg-type]


def own_forward(model: Any, ids: Tensor, positions: Tensor, attention: Attention) -> Tensor:
    """Run nodes through a model's own decoder, which has been told of this attention by `install`.

    Args:
        model: A model of transformers.
        ids: Token ids. Shape: (n_nodes,)
        positions: Positions in their prompts. Shape: (n_nodes,)
        attention: Who attends to whom.

    Returns:
        Hidden states after the last norm. Shape: (n_nodes, hidden_size)
    """
    output = model.get_decoder()(
        input_ids=ids[None],
        position_ids=positions[None],
        # A mask of four dimensions is taken as made; the pack's attention never looks at it.
        attention_mask=torch.ones((1, 1, 1, 1), dtype=torch.bool, device=ids.device),
        use_cache=False,
        relx_pack=attention,
    )
    hidden: Tensor = output.last_hidden_state[0]
    return hidden


def install(model: Any) -> None:
    """Make a transformers model use this attention; its plain forward passes stay what they were."""
    AttentionInterface.register(NAME, _attention_forward)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
