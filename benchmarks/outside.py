"""Everything outside the model: pairs, prompts, tokens, trees, search, results, with a model that answers at once.

    python benchmarks/outside.py --out benchmarks/results/outside.json

One thread; pairs a second is per core. `stages` says where the time goes by stage, `hot_spots` by function (own time,
under the profiler, which slows Python code more than library code: use it to find places, not to compare times).
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
from pathlib import Path
from typing import TYPE_CHECKING, Any

import results
import spacy
import torch
from workload import EXAMPLES

import spacy_relx
from spacy_relx.benchmark.component import time_parts, to_docs, with_engine
from spacy_relx.benchmark.documents import made_up
from spacy_relx.benchmark.machine import provenance
from spacy_relx.benchmark.parts import shares
from spacy_relx.benchmark.timing import Summary, interleave, rates
from spacy_relx.benchmark.zero_cost import zero_cost_engine
from spacy_relx.engine.loading import load_tokenizer
from spacy_relx.engine.spec import EMBEDDED_BASE, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spacy.tokens import Doc

    from spacy_relx.pipeline import RelationExtractor

#: Pairs a second and core that an engine of a datacentre GPU's speed needs.
TARGET = 20_000

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
    seconds = interleave({str(n): lambda docs=docs: answer(component, docs) for n, docs in work.items()}, args.rounds)  # type: ignore[misc]
    by_entities = {}
    for n, docs in work.items():
        n_pairs = len(docs) * n * (n - 1)
        by_entities[str(n)] = {
            "pairs": n_pairs,
            "documents": len(docs),
            "pairs_per_second_per_core": Summary.of(rates(seconds[str(n)], n_pairs)).to_dict(),
            "stages": stages(component, engine, docs),
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
    main()
