"""Measures how many labels change with the number format, and that nothing changes without a reason.

The same pairs are asked about in float32, bfloat16 and NF4 (4 bits, which needs bitsandbytes). Each run is done twice:
the second answers have to be the first ones to the last bit.

Run:

python benchmarks/determinism.py --conll04 conll04_test.json --pairs 1000 --out benchmarks/results/determinism.json
"""

from __future__ import annotations

import argparse
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import results
from workload import build_prompts, load_documents, questions_of

from spacy_relx.benchmark.machine import model_facts, provenance
from spacy_relx.engine.loading import load_model
from spacy_relx.engine.packed import PackedEngine
from spacy_relx.engine.spec import EMBEDDED_ADAPTER, EMBEDDED_BASE, ModelSpec

RUNS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "nf4": {"dtype": "bfloat16", "quantization": "nf4"},
}


def main(arguments: list[str] | None = None) -> None:
    """Ask, compare and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conll04", type=Path, help="CoNLL04 test file; made-up documents otherwise")
    parser.add_argument("--base", default=EMBEDDED_BASE)
    parser.add_argument("--adapter", default=None, help=f"default: {EMBEDDED_ADAPTER} on {EMBEDDED_BASE}, else none")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--answers", type=Path, help="a JSON file for the answers of each run: best label, its score")
    args = parser.parse_args(arguments)

    adapter = args.adapter or (EMBEDDED_ADAPTER if args.base == EMBEDDED_BASE else None)
    runs: dict[str, dict[str, Any]] = {}
    found: dict[str, list[tuple[int, float]]] = {}
    for name in args.runs:
        loaded = load_model(ModelSpec(args.base, adapter, device=args.device, **RUNS[name]))
        found[name] = answers(loaded, args.conll04, args.pairs)
        same_again = answers(loaded, args.conll04, args.pairs) == found[name]
        runs[name] = {"model": model_facts(loaded), "same_again": same_again}
    changes = {f"{a} and {b}": compare(found[a], found[b]) for a, b in combinations(found, 2)}
    n_pairs = len(found[args.runs[0]])
    results.write(args.out, {**provenance(), "pairs": n_pairs, "changes": changes, "runs": runs})
    if args.answers is not None:
        args.answers.write_text(json.dumps(found), encoding="utf-8")
    for name, run in runs.items():
        if not run["same_again"]:
            raise SystemExit(f"{name}: the same questions were answered otherwise the second time")


def answers(loaded: Any, conll04: Path | None, n_pairs: int) -> list[tuple[int, float]]:
    """Best label (by its number) and score of each pair, from an engine that has kept nothing."""
    builder, labels = build_prompts(loaded.tokenizer, 0)
    n_labels = len(labels.sequences)
    found: list[tuple[int, float]] = []
    engine = PackedEngine(loaded)
    for document in questions_of(load_documents(conll04, n_pairs), builder, n_labels):
        rankings = engine.rank(document[: n_pairs - len(found)], labels, top_k=1) if len(found) < n_pairs else []
        found += [(ranking.scores[0].label, ranking.scores[0].prob) for ranking in rankings]
    return found


def compare(a: list[tuple[int, float]], b: list[tuple[int, float]]) -> dict[str, float]:
    """Share of pairs with another label, and how far scores of the same label lie apart."""
    apart = [abs(x[1] - y[1]) for x, y in zip(a, b) if x[0] == y[0]]
    return {
        "changed_labels": sum(x[0] != y[0] for x, y in zip(a, b)) / len(a),
        "largest_difference_of_a_score": max(apart, default=0.0),
        "mean_difference_of_a_score": sum(apart) / len(apart) if apart else 0.0,
    }


if __name__ == "__main__":
    main()
