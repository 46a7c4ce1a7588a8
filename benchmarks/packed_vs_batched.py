"""Pairs per second of the packed engine, against left-padded batched `generate` and the model card's loop.

All three use the same model, prompts, number format and threads, and run in turn, A B C A B C, in one process.
Run:

    python benchmarks/packed_vs_batched.py --conll04 conll04_test.json --limit 40 --shots 2 --out results.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from workload import build_prompts, load_documents, questions_of

from spacy_relx.engine.loading import load_model
from spacy_relx.engine.packed import PackedEngine
from spacy_relx.engine.spec import EMBEDDED_BASE, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from spacy_relx.engine.loading import LoadedModel
    from spacy_relx.engine.types import LabelIds, Question


def packed(engine: PackedEngine, work: list[list[Question]], labels: LabelIds) -> None:
    """Answer every document's pairs in one pack."""
    for questions in work:
        engine.rank(questions, labels)


def batched_generate(loaded: LoadedModel, work: list[list[Question]], new_tokens: int, batch: int) -> None:
    """What users of transformers write: batches padded on the left, greedy decoding."""
    prompts = [question.prompt.ids for questions in work for question in questions]
    pad = loaded.tokenizer.pad_token_id
    model: Any = loaded.model
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        width = max(map(len, part))
        ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in part])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in part])
        settings = {"max_new_tokens": new_tokens, "do_sample": False, "pad_token_id": pad}
        model.generate(input_ids=ids, attention_mask=mask, **settings)


def card_loop(loaded: LoadedModel, work: list[list[Question]], new_tokens: int) -> None:
    """The model card's loop: one pair at a time."""
    batched_generate(loaded, work, new_tokens, batch=1)


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conll04", type=Path, help="CoNLL04 test file; made-up documents otherwise")
    parser.add_argument("--limit", type=int, default=40, help="documents")
    parser.add_argument("--shots", type=int, choices=(0, 2), default=2)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--batch", type=int, default=8, help="batch of generate")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rival-documents", type=int, default=3, help="documents the slow rivals get (rates compare)")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    loaded = load_model(ModelSpec(EMBEDDED_BASE, dtype=args.dtype, device="cpu"))
    builder, labels = build_prompts(loaded.tokenizer, args.shots)
    work = questions_of(load_documents(args.conll04, args.limit), builder, len(labels))
    work = [questions for questions in work if questions]
    some = sorted(work, key=len)[len(work) // 2 :][: args.rival_documents]
    new_tokens = max(map(len, labels.sequences)) + 1
    engine = PackedEngine(loaded)

    runs: dict[str, tuple[Callable[[], None], int]] = {
        "packed": (lambda: packed(engine, work, labels), sum(map(len, work))),
        "batched_generate": (
            lambda: batched_generate(loaded, some, new_tokens, args.batch),
            sum(map(len, some)),
        ),
        "card_loop": (lambda: card_loop(loaded, some, new_tokens), sum(map(len, some))),
    }
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(args.rounds + 1):
        for name, (run, n_pairs) in runs.items():
            start = time.perf_counter()
            with torch.inference_mode():
                run()
            if round_:  # the first is the warm-up
                rates[name].append(n_pairs / (time.perf_counter() - start))
    counts = engine.work
    result = {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip(),
        "machine": f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "transformers", "spacy-relx")},
        "model": f"{EMBEDDED_BASE}, no adapter, fingerprint {loaded.fingerprint[:16]}",
        "dtype": args.dtype,
        "shots": args.shots,
        "documents": len(work),
        "pairs": sum(map(len, work)),
        "pairs_of_rivals": sum(map(len, some)),
        "tokens_in_prompts": counts.n_prompt_tokens // (args.rounds + 1),
        "tokens_computed": counts.n_tokens // (args.rounds + 1),
        "pairs_per_second": {name: summary(values) for name, values in rates.items()},
        "ratio_to_packed": {
            name: summary([a / b for a, b in zip(rates["packed"], values)])
            for name, values in rates.items()
            if name != "packed"
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n")


def processor_name() -> str:
    """What the processor calls itself."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    return names[0].split(":")[1].strip() if names else platform.processor() or platform.machine()


def summary(values: list[float]) -> dict[str, float]:
    """Median, least and greatest, of n runs."""
    return {
        "n": len(values),
        "median": round(statistics.median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
    }


if __name__ == "__main__":
    main()
