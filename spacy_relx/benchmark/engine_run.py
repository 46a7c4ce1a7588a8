"""One measurement of an engine: its rate, the rivals' and the machine's, in turn, and what was computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spacy_relx.benchmark import limit, memory
from spacy_relx.benchmark.parts import Clock, decoder_calls, shares, watch_model
from spacy_relx.benchmark.timing import Summary, interleave, rates, ratios

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from spacy_relx.engine.packed import PackedEngine
    from spacy_relx.engine.types import LabelIds, Question

#: Bounds of the rows of the matrix products that the limit is measured with.
_ROWS = (16, 8192)


@dataclass(frozen=True)
class Contestant:
    """Something that is timed beside the engine.

    Attributes:
        run: Does the work once; may return the seconds it took.
        n_units: Pairs (or documents) that one run answers.
        unit: "pairs" or "documents".
        facts: What a reader has to know of it.
    """

    run: Callable[[], object]
    n_units: int
    unit: str = "pairs"
    facts: dict[str, Any] = field(default_factory=dict)


def measure(
    engine: PackedEngine,
    calls: Sequence[Sequence[Question]],
    labels: LabelIds,
    *,
    rounds: int = 5,
    n_documents: int | None = None,
    rivals: Mapping[str, Contestant] | None = None,
    ours: Callable[[], object] | None = None,
    parts: Callable[[], dict[str, float]] | None = None,
    progress: Callable[[str], object] | None = None,
) -> dict[str, Any]:
    """Measure an engine on some calls, each being the questions it is given at a time.

    Args:
        engine: The engine.
        calls: The questions of each call.
        labels: The labels.
        rounds: Timed rounds.
        n_documents: Documents in all calls; None: one a call.
        rivals: What runs in turn with it.
        ours: What answers all calls once, where that is more than asking the engine.
        parts: Gives the seconds of the parts of one more run; None: those of the model, and what is outside of it.
        progress: Told what is about to be run.

    Returns:
        Plain values: `pairs_per_second`, `documents_per_second`, `tokens`, `limit`, `rivals`, `time`, `memory`.
    """
    calls = [call for call in calls if call]
    rivals = rivals or {}
    synchronise = synchroniser(engine.device.type)
    run = ours or (lambda: [engine.rank(questions, labels) for questions in calls])
    memory.reset_device_peak(engine.device.type)

    run()  # the first answers fill caches; what the counters say of them is no round's work
    before = (engine.work.n_tokens, engine.work.n_forward)
    sizes = pass_sizes(engine.loaded.model, run)
    n_tokens, n_forward = engine.work.n_tokens - before[0], engine.work.n_forward - before[1]
    peak = memory.peak_facts(engine.device.type)  # before the rivals and the products of the limit add theirs

    # An engine that answers one prompt at a time has no packs; its limit is that of one which has.
    packs = engine.max_pack_tokens > 1
    tokens = limit.count_tokens(calls, engine.max_pack_tokens if packs else None)
    distinct = n_tokens - (tokens.in_packs - tokens.distinct) if packs else tokens.distinct
    shapes = limit.matrix_shapes(engine.loaded.model)
    rows = min(max(usual_rows(sizes), _ROWS[0]), _ROWS[1])
    products = limit.MatrixProducts(shapes, rows, engine.loaded.dtype, engine.device)
    runs: dict[str, Callable[[], object]] = {"ours": run, "matrix products": products}
    runs |= {name: rival.run for name, rival in rivals.items()}
    seconds = interleave(runs, rounds, synchronise=synchronise, progress=progress)

    documents = len(calls) if n_documents is None else n_documents
    n_pairs, parameters = sum(map(len, calls)), limit.n_parameters(shapes)
    speeds = rates(seconds["matrix products"], products.flop)
    bounds = [limit.limit_seconds(parameters, distinct, speed) for speed in speeds]
    return {
        "documents": documents,
        "pairs": n_pairs,
        "pairs_per_second": Summary.of(rates(seconds["ours"], n_pairs)).to_dict(),
        "documents_per_second": Summary.of(rates(seconds["ours"], documents)).to_dict(),
        "tokens": {
            "in_prompts": tokens.prompts,
            "computed": n_tokens,
            "distinct": distinct,
            "computed_a_pair": round(n_tokens / n_pairs, 2),
            "forward_passes": n_forward,
        },
        "limit": {
            "matrix_parameters": parameters,
            "rows_a_product": rows,
            "gflop_per_second": Summary.of([speed / 1e9 for speed in speeds]).to_dict(),
            "seconds": Summary.of(bounds).to_dict(),
            "share_reached": Summary.of(ratios(bounds, seconds["ours"])).to_dict(),
        },
        "rivals": {
            name: against(rival, seconds[name], seconds["ours"], n_pairs if rival.unit == "pairs" else documents)
            for name, rival in rivals.items()
        },
        "time": {"shares": shares(parts() if parts is not None else time_parts(engine, run))},
        "memory": peak,
    }


def pass_sizes(model: Any, run: Callable[[], object]) -> list[int]:
    """Tokens of each forward pass of a run."""
    sizes: list[int] = []

    def look(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[1]
        sizes.append(int(ids.numel()))
        return function(*args, **kwargs)

    with decoder_calls(model, look):
        run()
    return sizes


def usual_rows(sizes: Sequence[int]) -> int:
    """The size of the forward pass that a token is in on average: the small passes of label tokens hardly count."""
    return round(sum(size * size for size in sizes) / max(sum(sizes), 1))


def against(rival: Contestant, seconds: Sequence[float], ours: Sequence[float], n_ours: int) -> dict[str, Any]:
    """A rival's rate, and how many times as fast we are, round by round."""
    theirs = rates(seconds, rival.n_units)
    return {
        **rival.facts,
        rival.unit: rival.n_units,
        f"{rival.unit}_per_second": Summary.of(theirs).to_dict(),
        "ours_is_times_as_fast": Summary.of(ratios(rates(ours, n_ours), theirs)).to_dict(),
    }


def time_parts(engine: PackedEngine, run: Callable[[], object], clock: Clock | None = None) -> dict[str, float]:
    """Seconds of the parts of one more run: the model's, and "outside the model"."""
    clock = clock or Clock(synchroniser(engine.device.type))
    with watch_model(engine.loaded.model, clock), clock.span("outside the model"):
        run()
    return dict(clock.seconds)


def synchroniser(device: str) -> Callable[[], object] | None:
    """What waits for a device; None for one that computes in the foreground."""
    if device == "cuda":
        import torch

        return torch.cuda.synchronize
    return None
