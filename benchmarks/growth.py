"""How the cost grows: with the entities of a document, with documents, and what many documents leave in memory.

    python benchmarks/growth.py --out benchmarks/results/growth.json --plot benchmarks/results/growth.svg

With a model that costs nothing, which shows what is around it, and with a real one on fewer documents. Pairs lie within
a window of the text, so that a document of twice the entities has twice the pairs. `exponent` is the slope of the time
over the pairs (or documents) on two logarithmic scales: 1 is linear.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plots
import results
import torch
from outside import answer, make_component

from spacy_relx.benchmark.component import to_docs, with_engine
from spacy_relx.benchmark.documents import made_up
from spacy_relx.benchmark.machine import model_facts, provenance
from spacy_relx.benchmark.memory import current_bytes
from spacy_relx.benchmark.timing import Summary, interleave
from spacy_relx.benchmark.zero_cost import zero_cost_engine
from spacy_relx.engine.allocator import keep_freed_memory
from spacy_relx.engine.loading import load_model
from spacy_relx.engine.select import make_engine
from spacy_relx.engine.spec import EMBEDDED_BASE, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from spacy.tokens import Doc

    from spacy_relx.pipeline import RelationExtractor

#: Tokens between two mentions at most; about six entities on each side.
_DISTANCE = 30


def main(arguments: list[str] | None = None) -> None:
    """Measure and write JSON and a picture."""
    args = _arguments(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    loaded = load_model(ModelSpec(args.base, dtype=args.dtype, device=args.device))
    candidates = {
        "@misc": "spacy-relx.EntityPairs.v1",
        "scope": "window",
        "max_distance": _DISTANCE,
        "window": _DISTANCE,
    }
    component = make_component(candidates=candidates)
    engines = {
        "zero-cost": with_engine(component, zero_cost_engine(loaded.tokenizer)),
        "model": with_engine(component, make_engine(loaded)),
    }
    found: dict[str, dict[str, Any]] = {"entities": {}, "documents": {}, "memory": {}, "exponents": {}}
    # Memory first: large documents leave room in the allocator's books that small ones would be seen to fill again.
    for name, asked in engines.items():
        many = args.many if name == "zero-cost" else args.model_many
        found["memory"][name] = memory_over(asked, many, args.samples)
    for name, asked in engines.items():
        numbers = args.documents if name == "zero-cost" else args.model_documents
        found["entities"][name] = by_entities(asked, args.entities, args.rounds)
        found["documents"][name] = by_documents(asked, numbers, args.rounds)
        found["exponents"][name] = {
            "pairs": exponent(found["entities"][name], "pairs"),
            "documents": exponent(found["documents"][name], "documents"),
        }
    result = {**provenance(), "model": model_facts(loaded), **found}
    results.write(args.out, result)
    if args.plot:
        plots.growth(args.plot, result)


def by_entities(component: RelationExtractor, numbers: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """Seconds of one document, by its entities."""
    docs = {n: to_docs(made_up(1, n, seed=n), component.vocab) for n in numbers}
    pairs = {n: len(component.candidate_pairs(docs[n][0])) for n in numbers}
    seconds = interleave({str(n): lambda n=n: answer(component, docs[n]) for n in numbers}, rounds)  # type: ignore[misc]
    return [_row({"entities": n, "pairs": pairs[n]}, seconds[str(n)]) for n in numbers]


def by_documents(component: RelationExtractor, numbers: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """Seconds of so many documents of four entities."""
    docs = to_docs(made_up(max(numbers), 4), component.vocab)
    seconds = interleave({str(n): lambda n=n: answer(component, docs[:n]) for n in numbers}, rounds)  # type: ignore[misc]
    return [_row({"documents": n}, seconds[str(n)]) for n in numbers]


def memory_over(component: RelationExtractor, n_documents: int, n_samples: int) -> list[dict[str, Any]]:
    """What the process holds while a stream of new documents goes through and is let go."""
    every = max(1, n_documents // n_samples)
    rows = []
    start = time.perf_counter()
    for n, _ in enumerate(component.pipe(_stream(component, n_documents)), 1):
        if n % every == 0:
            taken = round(time.perf_counter() - start, 2)
            rows.append({"documents": n, "memory_mib": round(current_bytes() / 2**20, 1), "seconds": taken})
    return rows


def _stream(component: RelationExtractor, n_documents: int) -> Iterator[Doc]:
    """Documents that differ, made as they are asked for."""
    for seed in range(n_documents):
        yield from to_docs(made_up(1, (2, 5), seed=seed), component.vocab)


def exponent(rows: Sequence[dict[str, Any]], key: str) -> float | None:
    """Slope of log(seconds) over log(key) by least squares; None for fewer than two values."""
    points = [(math.log(row[key]), math.log(row["seconds"])) for row in rows if row[key] > 0]
    if len({x for x, _ in points}) < 2:
        return None
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points))
    above = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return round(above / sum((x - mean_x) ** 2 for x, _ in points), 3)


def _row(facts: dict[str, Any], seconds: Sequence[float]) -> dict[str, Any]:
    summary = Summary.of(seconds).to_dict()
    return {**facts, "seconds": summary["median"], "spread": summary}


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=EMBEDDED_BASE)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--entities", type=int, nargs="+", default=[2, 5, 10, 20, 50, 100, 200], help="of one document")
    parser.add_argument("--documents", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--model-documents", type=int, nargs="+", default=[5, 10, 20, 50])
    parser.add_argument("--many", type=int, default=100_000, help="documents of the stream, zero-cost")
    parser.add_argument("--model-many", type=int, default=500, help="documents of the stream, real model")
    parser.add_argument("--samples", type=int, default=50, help="points of the memory's curve")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path, help="an .svg file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    keep_freed_memory()  # as the command line does
    main()
