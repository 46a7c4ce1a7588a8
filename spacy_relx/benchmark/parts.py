"""Where the time of a model goes: matrix products, the rest of attention, everything else.

Measured by hooks on the model's modules in a run of its own: they cost a little, so no speed is read from that run.
"""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spacy_relx.benchmark.limit import matrix_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Clock:
    """Adds up seconds by name; of nested spans, each has what lies outside the ones in it.

    Attributes:
        seconds: What each name took by itself.
    """

    synchronise: Callable[[], object] | None = None
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _open: list[tuple[str, float]] = field(default_factory=list)

    def start(self, name: str) -> None:
        """Begin a span; the one around it waits."""
        now = self._now()
        if self._open:
            outer, since = self._open[-1]
            self.seconds[outer] += now - since
        self._open.append((name, now))

    def stop(self) -> None:
        """End the innermost span; the one around it goes on."""
        now = self._now()
        name, since = self._open.pop()
        self.seconds[name] += now - since
        if self._open:
            self._open[-1] = (self._open[-1][0], now)

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """A span as a block."""
        self.start(name)
        try:
            yield
        finally:
            self.stop()

    def _now(self) -> float:
        if self.synchronise is not None:
            self.synchronise()
        return time.perf_counter()


@contextmanager
def watch_model(model: Any, clock: Clock) -> Iterator[None]:
    """Let a model's parts report to a clock.

    They are "matrix products" (or "quantised matrix products", with what brings the numbers back), "adapter" (what an
    adapted layer does beside its base), "attention" (without its matrices) and "rest of model".
    """
    decoder = model.get_decoder()
    watched: dict[int, str] = {}
    for _, layer in matrix_layers(model):
        base = getattr(layer, "base_layer", None)
        if base is not None:
            watched[id(layer)] = "adapter"
        watched[id(layer if base is None else base)] = _product(layer if base is None else base)
    handles = []

    def name_of(path: str, module: Any) -> str | None:
        if module is decoder:
            return "rest of model"
        if id(module) in watched:
            return watched[id(module)]
        last = path.rpartition(".")[2]
        return "attention" if last in ("self_attn", "attention", "attn") else None

    for path, module in decoder.named_modules():
        name = name_of(path, module)
        if name is None:
            continue

        def begin(_module: Any, _arguments: Any, name: str = name) -> None:
            clock.start(name)

        def end(_module: Any, _arguments: Any, _output: Any) -> None:
            clock.stop()

        handles.append(module.register_forward_pre_hook(begin))
        handles.append(module.register_forward_hook(end))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _product(layer: Any) -> str:
    # The classes of bitsandbytes keep this beside the weight.
    quantised = hasattr(layer.weight, "quant_state") or hasattr(layer.weight, "SCB")
    return "quantised matrix products" if quantised else "matrix products"


def shares(seconds: dict[str, float]) -> dict[str, float]:
    """Each part's share of the whole, the greatest first."""
    total = sum(seconds.values())
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    return {name: round(value / total, 4) for name, value in ordered} if total else {}
