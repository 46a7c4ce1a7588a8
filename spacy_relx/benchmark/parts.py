"""Where the time of a model goes: matrix products, the rest of attention, everything else.

Measured in a run of its own, since a clock costs a little. Matrices have hooks; the forward passes around them are
wrapped where they are defined, because hooks there would make the engine take a model's own, slower way.
"""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spacy_relx.benchmark.limit import matrix_layers
from spacy_relx.engine import decoder as stock
from spacy_relx.engine.attention import PackAttention
from spacy_relx.engine.fused import FusedAttention

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
    watched: dict[int, str] = {}
    for _, layer in matrix_layers(model):
        base = getattr(layer, "base_layer", None)
        if base is not None:
            watched[id(layer)] = "adapter"
        watched[id(layer if base is None else base)] = _product(layer if base is None else base)

    def timed(name: str) -> Callable[..., Any]:
        def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            with clock.span(name):
                return function(*args, **kwargs)

        return call

    with ExitStack() as stack:
        stack.enter_context(decoder_calls(model, timed("rest of model")))
        for owner, function in _attentions(model):
            stack.enter_context(around(owner, function, timed("attention")))
        for module in model.get_decoder().modules():
            if (name := watched.get(id(module))) is None:
                continue

            def begin(_module: Any, _arguments: Any, name: str = name) -> None:
                clock.start(name)

            def end(_module: Any, _arguments: Any, _output: Any) -> None:
                clock.stop()

            stack.callback(module.register_forward_pre_hook(begin).remove)
            stack.callback(module.register_forward_hook(end).remove)
        yield


@contextmanager
def decoder_calls(model: Any, call: Callable[..., Any]) -> Iterator[None]:
    """Let every pass through a model's decoder, its own or the engine's, go through `call`.

    It is given the function and its arguments; the second of them, or `input_ids`, are the token ids.
    """
    with around(type(model.get_decoder()), "forward", call), around(stock, "forward", call):
        yield


@contextmanager
def around(owner: Any, name: str, call: Callable[..., Any]) -> Iterator[None]:
    """Let every call of a function of a class or a module go through `call`, which is given it and its arguments."""
    function, own = getattr(owner, name), name in vars(owner)

    @functools.wraps(function)
    def replacement(*args: Any, **kwargs: Any) -> Any:
        return call(function, *args, **kwargs)

    setattr(owner, name, replacement)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, function)
        else:
            delattr(owner, name)


def _attentions(model: Any) -> list[tuple[Any, str]]:
    """Where attention is computed: in a pack, and in the model's own modules."""
    names = ("self_attn", "attention", "attn")
    modules = (module for path, module in model.get_decoder().named_modules() if path.rpartition(".")[2] in names)
    ours = [(PackAttention, "attend"), (FusedAttention, "attend")]
    return [*ours, *((kind, "forward") for kind in dict.fromkeys(map(type, modules)))]


def _product(layer: Any) -> str:
    # The classes of bitsandbytes keep this beside the weight.
    quantised = hasattr(layer.weight, "quant_state") or hasattr(layer.weight, "SCB")
    return "quantised matrix products" if quantised else "matrix products"


def shares(seconds: dict[str, float]) -> dict[str, float]:
    """Each part's share of the whole, the greatest first."""
    total = sum(seconds.values())
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    return {name: round(value / total, 4) for name, value in ordered} if total else {}
