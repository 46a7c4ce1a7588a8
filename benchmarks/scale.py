"""One process, several Ray actors, and a service under clients: pairs a second over the same documents, in one run.

    python benchmarks/scale.py --clients 1 8 --actors 2 --out benchmarks/results/scale.json

All have the same threads of this machine: the process and the service all of them, every actor its part. Service and
clients are threads of one process, so on few cores the clients cost the service something; one client is "one request
at a time". The ways are timed in turn, round by round.

`startup_seconds` is what comes before: loading a model, for the service its start besides, Ray's start, and the actors'
in every round, each with a model of its own. `pairs_per_second` has none of that. For the actors it has reading and
writing blocks, and the end, when one still works and the others have nothing left: with few documents that weighs more.

`same_answers` compares every pair's answer with that of the one process. Documents that share forward passes, as in the
service, may differ in the digits that the number format rounds away, and a pair whose best two labels are about equal
in its label.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import results
import torch
from ways import FACTORY, Clients, OneProcess, RayActors, Relations, make_pipeline, service, warm_up

from spacy_relx.benchmark.component import to_docs
from spacy_relx.benchmark.documents import made_up
from spacy_relx.benchmark.machine import model_facts, provenance
from spacy_relx.benchmark.timing import Summary, interleave, rates, ratios
from spacy_relx.engine.allocator import keep_freed_memory
from spacy_relx.engine.spec import EMBEDDED_BASE
from spacy_relx.serving.limits import Limits
from spacy_relx.shim import engine_shim

if TYPE_CHECKING:
    from collections.abc import Callable

#: Scores that lie no further apart count as the same, by the model's number format.
_TOLERANCE = {torch.float32: 1e-4}
_COARSE_TOLERANCE = 0.05


def main(arguments: list[str] | None = None) -> None:
    """Measure and write JSON."""
    args = _arguments(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    no_ray = why_no_ray(args.ray)
    with ExitStack() as stack:
        ways, startup = start(args, stack, with_ray=no_ray is None)
        seconds = interleave({name: way.run for name, way in ways.items()}, args.rounds, warm_up=0)
    alone = ways["one_process"]
    extractor = alone.nlp.get_pipe(FACTORY)
    n_pairs = sum(len(extractor.candidate_pairs(doc)) for doc in alone.docs)
    loaded = engine_shim(extractor.model).engine.loaded
    tolerance = _TOLERANCE.get(loaded.dtype, _COARSE_TOLERANCE) if args.tolerance is None else args.tolerance
    others = [name for name in ways if name != "one_process"]
    result: dict[str, Any] = {
        **provenance(),
        "model": model_facts(loaded),
        "documents": len(alone.docs),
        "pairs": n_pairs,
        "max_wait_ms": args.max_wait,
        "startup_seconds": {name: round(value, 2) for name, value in startup.items()},
        "measured": {name: _measured(way, seconds[name], len(alone.docs), n_pairs) for name, way in ways.items()},
        "times_as_fast_as_one_process": {
            name: Summary.of(ratios(seconds["one_process"], seconds[name])).to_dict() for name in others
        },
        "tolerance_of_scores": tolerance,
        "same_answers": {name: compare(alone.relations, ways[name].relations, tolerance) for name in others},
        "not_run": {"ray": no_ray} if no_ray else {},
    }
    if no_ray:
        result["startup_seconds"]["ray"] = result["measured"]["ray"] = None
        print(f"No Ray actors: {no_ray}.", file=sys.stderr)
    results.write(args.out, result)


def start(args: argparse.Namespace, stack: ExitStack, *, with_ray: bool) -> tuple[dict[str, Any], dict[str, float]]:
    """The ways, ready to run, and the seconds that each took until then."""
    model = {"@architectures": "spacy-relx.CausalLM.v1", "base": args.base, "dtype": args.dtype, "device": args.device}
    # Every answer is there to be compared, those that there is no relation, too.
    settings = {"model": model, "threshold": 0.0, "keep_no_relation": True}
    nlp = make_pipeline(settings)
    startup = {"one_process": _seconds(lambda: warm_up(nlp))}
    docs = to_docs(made_up(args.documents, seed=args.seed), nlp.vocab)
    ways: dict[str, Any] = {"one_process": OneProcess(nlp, docs)}

    begun = time.perf_counter()
    served = make_pipeline(settings)
    warm_up(served)
    limits = Limits(max_wait_ms=args.max_wait, max_waiting=max(512, *args.clients))
    url = stack.enter_context(service(served, limits))
    startup["service"] = time.perf_counter() - begun
    ways |= {f"service_{n}_client{'s' * (n > 1)}": Clients(url, docs, n) for n in args.clients}

    if with_ray:
        from spacy_relx.distributed.ray_data import connected

        startup["ray"] = _seconds(lambda: stack.enter_context(connected("local")))
        n_threads = max(1, torch.get_num_threads() // args.actors)
        ways["ray"] = RayActors(settings, docs, n_actors=args.actors, n_threads=n_threads, block_size=args.block_size)
    return ways, startup


def compare(ours: Relations, others: Relations, tolerance: float) -> dict[str, float]:
    """How many answers there are, how many have another label (or are not there), and how many another score."""
    same = [place for place, (label, _) in ours.items() if place in others and others[place][0] == label]
    apart = [abs(ours[place][1] - others[place][1]) for place in same]
    return {
        "answers": len(ours),
        "other_labels": len(ours.keys() | others.keys()) - len(same),
        "scores_apart": sum(difference > tolerance for difference in apart),
        "largest_difference_of_a_score": max(apart, default=0.0),
    }


def _measured(way: Any, seconds: list[float], n_documents: int, n_pairs: int) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "pairs_per_second": Summary.of(rates(seconds, n_pairs)).to_dict(),
        "documents_per_second": Summary.of(rates(seconds, n_documents)).to_dict(),
    }
    if isinstance(way, Clients):
        cuts = statistics.quantiles(way.latencies, n=100, method="inclusive")
        facts |= {"p50_ms": round(1000 * cuts[49], 1), "p95_ms": round(1000 * cuts[94], 1)}
    if isinstance(way, RayActors):
        facts |= {"actors": way.n_actors, "threads_of_an_actor": way.n_threads, "documents_of_a_block": way.block_size}
        facts["actors_start_seconds"] = Summary.of(way.start_seconds).to_dict()
    return facts


def why_no_ray(wanted: bool | None) -> str | None:
    """Why there will be no actors, if so."""
    if wanted is False:
        return "left out with --no-ray"
    if importlib.util.find_spec("ray") is None:
        return "Ray is not installed: pip install 'spacy-relx[ray]'"
    return None


def _seconds(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=EMBEDDED_BASE)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, help="of torch; all ways share them")
    parser.add_argument("--documents", type=int, default=40, help="made-up documents of two to five entities")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8], help="of the service at a time, one run each")
    parser.add_argument("--max-wait", type=float, default=5.0, help="milliseconds that a batch waits for company")
    parser.add_argument(
        "--ray", action=argparse.BooleanOptionalAction, default=None, help="left out: if Ray is installed"
    )
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--block-size", type=int, default=2, help="documents that an actor takes at a time")
    parser.add_argument("--tolerance", type=float, help="scores no further apart are the same; left out, by dtype")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(arguments)
    if args.ray and (reason := why_no_ray(args.ray)):
        parser.error(reason)
    return args


if __name__ == "__main__":
    keep_freed_memory()  # as the command line does
    main()
