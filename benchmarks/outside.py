"""Everything outside the model: pairs, prompts, tokens, trees, search, results, with a model that answers at once.

    python benchmarks/outside.py --out benchmarks/results/outside.json

Documents are answered one by one, as on a processor, and again in packs that they share, as on a GPU (`pooled`).

One thread; times are seconds of the processor and not of the clock, so that what else a machine does hardly counts, and
pairs a second is per core. `stages` says where the time goes by stage, `hot_spots` by function (own time,
under the profiler, which slows Python code more than library code: use it to find places, not to compare times).
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import results
import spacy
import torch
from workload import EXAMPLES

import spacy_relx
from spacy_relx.benchmark.component import WatchedEngine, time_parts, to_docs, with_engine
from spacy_relx.benchmark.documents import made_up
from spacy_relx.benchmark.machine import provenance
from spacy_relx.benchmark.parts import shares
from spacy_relx.benchmark.timing import Summary, interleave, rates
from spacy_relx.benchmark.zero_cost import zero_cost_engine
from spacy_relx.engine import packing, prefix_tree
from spacy_relx.engine.allocator import keep_freed_memory
from spacy_relx.engine.loading import load_tokenizer
from spacy_relx.engine.packed import DEFAULT_PACK_TOKENS
from spacy_relx.engine.spec import EMBEDDED_BASE, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spacy.tokens import Doc

    from spacy_relx.pipeline import RelationExtractor

#: Pairs a second and core that an engine of a datacentre GPU's speed needs.
TARGET = 20_000

#: Engines beside which the share is given: the embedded model on a processor, the flagship on a datacentre GPU.
_ENGINES = (50, 3000)

_LABELS = ("Work_For", "Live_In", "Located_In", "OrgBased_In", "Kill")


def main(arguments: list[str] | None = None) -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=EMBEDDED_BASE, help="whose tokenizer is used")
    parser.add_argument("--entities", type=int, nargs="+", default=[4, 8, 16], help="of a document")
    parser.add_argument("--pairs", type=int, default=4000, help="of each measurement, about")
    parser.add_argument("--shots", type=int, choices=range(9), default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spots", type=int, default=20, help="functions listed")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)

    engine = zero_cost_engine(load_tokenizer(ModelSpec(args.base)))
    component = with_engine(make_component(shots=args.shots), engine)
    work = {n: to_docs(made_up(max(1, args.pairs // (n * (n - 1))), n, seed=n), component.vocab) for n in args.entities}
    for docs in work.values():
        component(docs[0])  # the labels and the shared run are bound once
    pooling = with_engine(component, zero_cost_engine(engine.loaded.tokenizer, DEFAULT_PACK_TOKENS["cuda"]))
    pooling.pool = True
    pooling(next(iter(work.values()))[0])
    runs = {}
    for n, docs in work.items():
        for kind, asked in (("", component), (" pooled", pooling)):
            runs[f"{n}{kind}"] = processor_seconds(lambda asked=asked, docs=docs: answer(asked, docs))  # type: ignore[misc]
    seconds = interleave(runs, args.rounds)
    by_entities = {}
    for n, docs in work.items():
        n_pairs = len(docs) * n * (n - 1)
        by_entities[str(n)] = {
            "pairs": n_pairs,
            "documents": len(docs),
            "pairs_per_second_per_core": Summary.of(rates(seconds[str(n)], n_pairs)).to_dict(),
            "share_of_the_time": beside(n_pairs, seconds[str(n)]),
            "pooled": {
                "pairs_per_second_per_core": Summary.of(rates(seconds[f"{n} pooled"], n_pairs)).to_dict(),
                "share_of_the_time": beside(n_pairs, seconds[f"{n} pooled"]),
            },
            "stages": stages(component, engine, docs),
            "steps_microseconds_a_pair": steps(component, engine, docs),
        }
    results.write(
        args.out,
        {
            **provenance(),
            "model": {"base": "zero-cost", "tokenizer": Path(args.base).name, "device": "cpu"},
            "shots": args.shots,
            "target_pairs_per_second_per_core": TARGET,
            "entities": by_entities,
            "hot_spots": hot_spots(component, [doc for docs in work.values() for doc in docs], args.spots),
        },
    )


def processor_seconds(run: Callable[[], object]) -> Callable[[], float]:
    """The same, returning the seconds that the processor spent on it."""

    def timed() -> float:
        start = time.process_time()
        run()
        return time.process_time() - start

    return timed


def make_component(shots: int = 0, **settings: Any) -> RelationExtractor:
    """The component with CoNLL04's labels, without limits by entity type, so that every pair is asked about."""
    nlp = spacy.blank("en")
    prompt = {"@misc": "spacy-relx.GenTunePrompt.v1", "examples": EXAMPLES[:shots]}
    config = {"labels": list(_LABELS), "prompt": prompt, **settings}
    component: RelationExtractor = nlp.add_pipe("llama_relation_extractor", config=config)
    return component


def answer(component: RelationExtractor, docs: Sequence[Doc]) -> None:
    """Docs in, relations on them."""
    for _ in component.pipe(iter(docs)):
        pass


def stages(component: RelationExtractor, engine: Any, docs: Sequence[Doc]) -> dict[str, float]:
    """Each stage's share; the zero-cost model's own is left out."""
    seconds = time_parts(component, engine, docs)
    seconds.pop("rest of model", None)
    return shares(seconds)


def beside(n_pairs: int, seconds: Sequence[float]) -> dict[str, float]:
    """The share of the time that this would take beside engines of some pairs a second."""
    own = Summary.of(seconds).median / n_pairs
    return {f"beside {rate} pairs/s": round(own / (own + 1 / rate), 4) for rate in _ENGINES}


def steps(component: RelationExtractor, engine: Any, docs: Sequence[Doc]) -> dict[str, float]:
    """Microseconds a pair of single steps, each called by itself on the same work."""
    watched = WatchedEngine(engine)
    answer(with_engine(component, watched), docs)
    prompts = [[question.prompt for question in call] for call in watched.calls]
    own = [[prompt.ids[prompt.n_shared :] for prompt in call] for call in prompts]
    trees = [prefix_tree.build(ids) for ids in own]
    assert watched.labels is not None
    queries = [
        component.settings.prompt.user_text(doc.text, head.text, tail.text)
        for doc in docs
        for head, tail in component.candidate_pairs(doc)
    ]
    backend: Any = engine.loaded.tokenizer.backend_tokenizer
    runs: dict[str, Any] = {
        "candidate pairs": lambda: [component.candidate_pairs(doc) for doc in docs],
        "tokenise user turns": lambda: [backend.encode(query, add_special_tokens=False) for query in queries],
        "tokenise user turns in batches": lambda: backend.encode_batch_fast(queries, add_special_tokens=False),
        "split by budget": lambda: [list(packing.split_by_budget(c, engine.max_pack_tokens)) for c in prompts],
        "build trees": lambda: [prefix_tree.build(ids) for ids in own],
        "plan attention": lambda: [packing.plan_tree(tree) for tree in trees],
        "engine, all of it": lambda: [engine.rank(call, watched.labels) for call in watched.calls],
    }
    seconds = interleave({name: processor_seconds(run) for name, run in runs.items()}, 3)
    n_pairs = sum(map(len, prompts))
    return {name: round(1e6 * Summary.of(times).median / n_pairs, 1) for name, times in seconds.items()}


def hot_spots(component: RelationExtractor, docs: Sequence[Doc], n: int) -> list[dict[str, Any]]:
    """The functions with the most time of their own, and their share of all of it."""
    profile = cProfile.Profile()
    profile.runcall(answer, component, docs)
    stats: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    total = sum(own for _, _, own, _, _ in stats.values())
    ordered = sorted(stats.items(), key=lambda item: -item[1][2])[:n]
    return [
        {
            "function": function,
            "where": place(file, line),
            "share": round(own / total, 4),
            "share_with_callees": round(cumulative / total, 4),
            "calls": calls,
        }
        for (file, line, function), (_, calls, own, cumulative, _) in ordered
    ]


def place(file: str, line: int) -> str:
    """A file inside its package, and a line; built-ins have none."""
    if not line:
        return "built-in"
    path = Path(file)
    package = Path(spacy_relx.__file__).parent
    if path.is_relative_to(package):
        return f"{path.relative_to(package.parent)}:{line}"
    parts = path.parts
    return f"{'/'.join(parts[parts.index('site-packages') + 1 :]) if 'site-packages' in parts else path.name}:{line}"


if __name__ == "__main__":
    keep_freed_memory()  # as the command line does
    main()
