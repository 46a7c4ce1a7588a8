"""Counts how exactly the packed engine answers as the reference does, on real prompts in float32.

Run:

python benchmarks/exactness.py --conll04 conll04_test.json --pairs 100 --out results.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

import results
from workload import build_prompts, load_documents, questions_of

from spacy_relx.benchmark.machine import model_facts, provenance
from spacy_relx.engine.loading import load_model
from spacy_relx.engine.packed import PackedEngine
from spacy_relx.engine.reference import ReferenceEngine
from spacy_relx.engine.spec import EMBEDDED_BASE, ModelSpec


def main(arguments: list[str] | None = None) -> None:
    """Compare and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conll04", type=Path, help="CoNLL04 test file; made-up documents otherwise")
    parser.add_argument("--base", default=EMBEDDED_BASE)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--shots", type=int, choices=(0, 2), default=0)
    parser.add_argument("--scoring", choices=("trie", "sequence"), default="trie")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(arguments)

    loaded = load_model(ModelSpec(args.base, dtype="float32", device="cpu"))
    builder, labels = build_prompts(loaded.tokenizer, args.shots)
    work = questions_of(load_documents(args.conll04, 40), builder, len(labels))
    packed, reference = PackedEngine(loaded), ReferenceEngine(loaded)
    n_pairs = n_equal = n_close = 0
    worst = 0.0
    for document in work:
        document = document[: args.pairs - n_pairs]
        if not document:
            continue
        got = packed.rank(document, labels, top_k=len(labels), scoring=args.scoring, tolerance=1e-9)
        oracle = reference.rank(document, labels, top_k=len(labels), scoring=args.scoring)
        for a, b in zip(got, oracle):
            true = {score.label: score.prob for score in b.scores}
            worst = max(worst, *(abs(score.prob - true[score.label]) for score in a.scores))
            n_equal += a.scores[0].label == b.scores[0].label
            n_close += b.scores[0].prob - b.scores[1].prob < 2e-4
        n_pairs += len(document)
    result = {
        **provenance(),
        "model": model_facts(loaded),
        "scoring": args.scoring,
        "shots": args.shots,
        "pairs": n_pairs,
        "labels_a_pair": len(labels),
        "largest_difference_of_a_score": worst,
        "equal_best_labels": n_equal,
        "pairs_with_a_margin_below_2e-4": n_close,
        "tokens_of_the_reference": reference.work.n_tokens,
        "tokens_of_the_packed_engine": packed.work.n_tokens,
    }
    results.write(args.out, result)


if __name__ == "__main__":
    main()
