"""Pairs per second of the packed engine, against left-padded batched `generate` and the model card's loop.

All three use the same model, prompts, number format and threads, and run in turn, A B C A B C, in one process.
Run:

    python benchmarks/packed_vs_batched.py --conll04 conll04_test.json --limit 40 --shots 2 --out results.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

import results
from workload import build_prompts, load_documents, questions_of

from spacy_relx.benchmark.machine import model_facts, provenance
from spacy_relx.benchmark.rivals import answer_tokens, generate
from spacy_relx.benchmark.timing import Summary, interleave, rates, ratios
from spacy_relx.engine.loading import load_model
from spacy_relx.engine.packed import PackedEngine
from spacy_relx.engine.spec import EMBEDDED_BASE, ModelSpec


def main(arguments: list[str] | None = None) -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conll04", type=Path, help="CoNLL04 test file; made-up documents otherwise")
    parser.add_argument("--base", default=EMBEDDED_BASE)
    parser.add_argument("--limit", type=int, default=40, help="documents")
    parser.add_argument("--shots", type=int, choices=range(9), default=2)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--batch", type=int, default=8, help="batch of generate")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rival-documents", type=int, default=3, help="documents the slow rivals get (rates compare)")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(arguments)

    loaded = load_model(ModelSpec(args.base, dtype=args.dtype, device="cpu"))
    builder, labels = build_prompts(loaded.tokenizer, args.shots)
    work = questions_of(load_documents(args.conll04, args.limit), builder, len(labels))
    work = [questions for questions in work if questions]
    some = sorted(work, key=len)[len(work) // 2 :][: args.rival_documents]
    prompts = [question.prompt for questions in some for question in questions]
    new_tokens = answer_tokens(labels)
    engine = PackedEngine(loaded)
    n_pairs = sum(map(len, work))

    seconds = interleave(
        {
            "packed": lambda: [engine.rank(questions, labels) for questions in work],
            "batched_generate": lambda: generate(loaded, prompts, new_tokens, args.batch),
            "card_loop": lambda: generate(loaded, prompts, new_tokens, 1),
        },
        args.rounds,
    )
    speed = {name: rates(times, n_pairs if name == "packed" else len(prompts)) for name, times in seconds.items()}
    counts = engine.work
    results.write(
        args.out,
        {
            **provenance(),
            "model": model_facts(loaded),
            "dtype": args.dtype,
            "shots": args.shots,
            "documents": len(work),
            "pairs": n_pairs,
            "pairs_of_rivals": len(prompts),
            "tokens_in_prompts": counts.n_prompt_tokens // (args.rounds + 1),
            "tokens_computed": counts.n_tokens // (args.rounds + 1),
            "pairs_per_second": {name: Summary.of(values).to_dict() for name, values in speed.items()},
            "ratio_to_packed": {
                name: Summary.of(ratios(speed["packed"], values)).to_dict()
                for name, values in speed.items()
                if name != "packed"
            },
        },
    )


if __name__ == "__main__":
    main()
