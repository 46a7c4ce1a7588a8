"""Attention over a pack on a GPU: the plan of `packing` carried out by torch's memory-efficient kernel.

What `attention` does by plain matrix products is here one kernel a bucket, which keeps the scores out of the device's
memory. Nodes are rows, so that what a block sees is gathered at the speed of a copy, and the shared run lies before the
nodes, so that it is gathered with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from spacy_relx.engine.store import Store

if TYPE_CHECKING:
    from spacy_relx.engine.packing import AttentionPlan

#: cuDNN's kernel is faster by some milliseconds, but is compiled anew for each shape, and hardly two packs have one.
_KERNELS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]

#: Numbers that the rows of a bias begin at multiples of, or the kernel would copy it in every layer.
_ALIGNMENT = 16


class FusedStore(Store):
    """Keys and values as `FusedAttention` wants them: (n_shared + capacity, n_key_value_heads, head_size)."""

    axis = 0
    growth = 1.125  # a GPU's memory is scarce


class FusedAttention:
    """The attention of one forward pass.

    Args:
        plan: Who attends to whom among the nodes of the pack.
        device: Where the model computes.
        store: Where the nodes' keys and values are kept, behind those of the shared run; None if they are this pass's
            own (training).
    """

    def __init__(self, plan: AttentionPlan, device: torch.device, store: FusedStore | None) -> None:
        self._plan = plan
        self._device = device
        self._store = store
        self._n_shared = 0 if store is None else store.n_shared
        self._buckets: list[tuple[Tensor, Tensor, Tensor]] = []
        self._slot: Tensor

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Answer the queries of one layer; the arguments and the result are those of `PackAttention.attend`."""
        query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
        n, n_heads, size = query.shape
        n_kv = key.shape[1]
        group = n_heads // n_kv
        if not self._buckets:
            self._index(n_kv, group, query.dtype)
        keys, values = (key, value) if self._store is None else self._store.write(layer, key, value)
        rows = query.reshape(n * n_kv, group * size)
        answers = []
        with sdpa_kernel(_KERNELS):
            for query_index, key_index, bias in self._buckets:
                asked = rows.index_select(0, query_index.view(-1)).view(*query_index.shape[:2], -1, size)
                seen_keys, seen_values = (
                    states.index_select(0, key_index.view(-1)).view(*key_index.shape, n_kv, size).transpose(1, 2)
                    for states in (keys, values)
                )
                answer = functional.scaled_dot_product_attention(
                    asked, seen_keys, seen_values, attn_mask=bias, scale=scaling
                )
                del asked, seen_keys, seen_values
                # The kernel writes rows of heads; to flatten them copies nothing.
                answers.append(answer.transpose(1, 2).reshape(-1, size))
        flat = answers[0] if len(answers) == 1 else torch.cat(answers)
        return flat.index_select(0, self._slot).view(1, n, n_heads, size)

    def _index(self, n_kv: int, group: int, dtype: torch.dtype) -> None:
        """Bring the plan to the device, as indices of rows.

        A block's queries are (n_blocks, n_kv, max_queries) rows of `group` heads, its keys (n_blocks, n_shared +
        max_keys) nodes, and its answers (n_blocks, max_queries, group, n_kv) rows of one head.
        """
        shared = np.arange(self._n_shared)
        heads = np.arange(n_kv)
        for bucket in self._plan.buckets:
            n_blocks = len(bucket.queries)
            queries = bucket.queries[:, None, :] * n_kv + heads[:, None]
            keys = np.concatenate(
                (np.broadcast_to(shared, (n_blocks, len(shared))), bucket.keys + self._n_shared), axis=1
            )
            self._buckets.append((self._move(queries), self._move(keys), self._bias(bucket.mask, group, dtype)))
        slot = self._plan.slot[:, None, None] * group + np.arange(group)
        self._slot = self._move((slot * n_kv + heads[:, None]).reshape(-1))

    def _bias(self, mask: Any, group: int, dtype: torch.dtype) -> Tensor:
        """What is added to the scores. Shape: (n_blocks, 1, max_queries * group, n_shared + max_keys)."""
        n_blocks, width, n_keys = mask.shape
        n_all = self._n_shared + n_keys
        padded = -(-n_all // _ALIGNMENT) * _ALIGNMENT
        bias = torch.zeros((n_blocks, width, group, padded), dtype=dtype, device=self._device)
        bias[..., self._n_shared : n_all].masked_fill_(self._move(~mask)[:, :, None], float("-inf"))
        return bias.view(n_blocks, 1, width * group, padded)[..., :n_all]

    def _move(self, array: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device, non_blocking=True)
