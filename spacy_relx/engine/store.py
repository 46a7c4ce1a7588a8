"""Keys and values that are kept from one forward pass to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor


class Store:
    """Keys and values of every layer: those of a shared run, and of the nodes computed so far.

    Two tensors a layer, each with room for n_shared + capacity nodes along one axis; which one is up to the way that
    queries are answered, and said in a subclass.

    Args:
        capacity: Nodes that there is room for, beside the shared run.
        shared: The run that every query sees, or None.
    """

    #: The axis that nodes lie along.
    axis: ClassVar[int]
    #: How many times as much room there is when it has to grow.
    growth: ClassVar[float]

    def __init__(self, capacity: int, shared: Store | None = None) -> None:
        self.capacity = capacity
        self.n_nodes = 0
        self.n_shared = 0 if shared is None else shared.n_nodes
        self.shared = shared
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def reserve(self, n_new: int) -> None:
        """Make room for `n_new` more nodes, which the next forward pass writes."""
        needed = self.n_nodes + n_new
        if needed <= self.capacity:
            return
        self.capacity = max(needed, int(self.capacity * self.growth))
        for layer, (keys, values) in self._layers.items():
            self._layers[layer] = self._grown(keys), self._grown(values)

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append one layer's keys and values and return all of them; `advance` follows the last layer."""
        n_new = keys.shape[self.axis]
        if layer not in self._layers:
            above = (each.narrow(self.axis, 0, 0) for each in (keys, values))
            kept_keys, kept_values = above if self.shared is None else self.shared.layer(layer)
            self._layers[layer] = self._grown(kept_keys), self._grown(kept_values)
        kept_keys, kept_values = self._layers[layer]
        start = self.n_shared + self.n_nodes
        kept_keys.narrow(self.axis, start, n_new).copy_(keys)
        kept_values.narrow(self.axis, start, n_new).copy_(values)
        return self._first(layer, start + n_new)

    def advance(self, n_new: int) -> None:
        """Count the nodes that the finished forward pass wrote."""
        self.n_nodes += n_new

    def layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """All keys and values of one layer."""
        return self._first(layer, self.n_shared + self.n_nodes)

    def _first(self, layer: int, n: int) -> tuple[Tensor, Tensor]:
        keys, values = self._layers[layer]
        return keys.narrow(self.axis, 0, n), values.narrow(self.axis, 0, n)

    def _grown(self, tensor: Tensor) -> Tensor:
        shape = list(tensor.shape)
        shape[self.axis] = self.n_shared + self.capacity
        grown = tensor.new_empty(shape)
        n = min(tensor.shape[self.axis], shape[self.axis])
        grown.narrow(self.axis, 0, n).copy_(tensor.narrow(self.axis, 0, n))
        return grown
