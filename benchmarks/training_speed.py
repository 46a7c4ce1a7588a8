"""Training rows per second: packs that share prefixes against Hugging Face's Trainer, on the same rows in one run.

    python -m spacy relx rows corpus/conll04.train.spacy rows.jsonl --labels conll04
    python benchmarks/training_speed.py rows.jsonl --out benchmarks/results/training_speed.0shot.json

`--config benchmarks/two_shots.cfg` makes rows with two demonstrations.

Both train a LoRA adapter of the same shape on copies of the same model, in the same number format, with AdamW, no
dropout, and as many optimiser steps. The Trainer gets rows sorted by length and right-padded batches; a step of more
rows than `--trainer-batch` is accumulated from several, since padded rows of long prompts are soon too large for the
memory.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from results import write

from spacy_relx.benchmark.machine import model_facts, provenance
from spacy_relx.benchmark.timing import Summary, interleave, rates, ratios
from spacy_relx.engine.allocator import keep_freed_memory
from spacy_relx.engine.loading import load_model
from spacy_relx.engine.quiet import import_bitsandbytes
from spacy_relx.engine.spec import EMBEDDED_BASE, ModelSpec
from spacy_relx.training.encode import Encoder, TrainRow
from spacy_relx.training.gradient import GradientStep
from spacy_relx.training.lora import LoraWeights
from spacy_relx.training.lora_settings import PROJECTIONS, LoraSettings
from spacy_relx.training.packs import make_packs
from spacy_relx.training.rows import read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RATE = 1e-4


def packed(
    spec: ModelSpec, steps: Sequence[Sequence[TrainRow]], lora: LoraSettings
) -> tuple[Callable[[], None], Any, int]:
    """One pass over the rows with this package's own core; also the model and the pack budget."""
    loaded = load_model(spec)
    weights = LoraWeights(loaded, lora)
    step = GradientStep(loaded, weights)
    optimizer = torch.optim.AdamW(weights.masters.values(), lr=RATE, fused=loaded.device.type == "cpu")

    def run() -> None:
        for rows in steps:
            step.add(rows)
            step.finish()
            optimizer.step()
            step.reset()
            weights.write()

    return run, loaded, step.max_pack_tokens


def trainer(spec: ModelSpec, rows: Sequence[TrainRow], lora: LoraSettings, batch: int, most: int) -> Callable[[], None]:
    """One pass over the rows with transformers' Trainer and PEFT: steps of `batch` rows, at most `most` at a time."""
    import_bitsandbytes()
    from peft import LoraConfig, get_peft_model
    from transformers import PrinterCallback, Trainer, TrainingArguments

    loaded = load_model(spec)
    loaded.model.set_attn_implementation("sdpa")
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(PROJECTIONS), task_type="CAUSAL_LM")
    model = get_peft_model(loaded.model, config, autocast_adapter_dtype=False)
    model.train()
    ordered = sorted(rows, key=lambda row: len(row.prompt) + len(row.answer))
    data = [
        {"input_ids": [*row.prompt, *row.answer], "labels": [-100] * len(row.prompt) + list(row.answer)}
        for row in ordered
    ]

    def collate(batch_rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in batch_rows)

        def padded(name: str, value: int) -> torch.Tensor:
            return torch.tensor([row[name] + [value] * (width - len(row[name])) for row in batch_rows])

        return {
            "input_ids": padded("input_ids", 0),
            "labels": padded("labels", -100),
            "attention_mask": torch.tensor(
                [[1] * len(r["input_ids"]) + [0] * (width - len(r["input_ids"])) for r in batch_rows]
            ),
        }

    parts = math.ceil(batch / most)

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=math.ceil(batch / parts),
                gradient_accumulation_steps=parts,
                num_train_epochs=1,
                learning_rate=RATE,
                use_cpu=spec.device == "cpu",
                save_strategy="no",
                logging_strategy="no",
                report_to=[],
                disable_tqdm=True,
                optim="adamw_torch_fused",
                train_sampling_strategy="sequential",
            )
            job = Trainer(model, arguments, train_dataset=data, data_collator=collate)  # type: ignore[arg-type]
            job.remove_callback(PrinterCallback)
            job.train()

    return run


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and write; returns what is written."""
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    spec = ModelSpec(options.base, dtype=options.dtype, device=options.device, merge_adapter=False)
    lora = LoraSettings(options.rank, 2 * options.rank)
    tokenizer = load_model(spec).tokenizer
    encode = Encoder(tokenizer)
    steps: list[list[TrainRow]] = [[]]
    n_rows = 0
    for group in read_rows(options.rows):
        if n_rows >= options.limit:
            break
        if len(steps[-1]) >= options.batch_rows:
            steps.append([])
        steps[-1] += encode(group)
        n_rows += len(group)
    rows = [row for step in steps for row in step]
    batch = math.ceil(len(rows) / len(steps))  # as many optimiser steps for both

    ours, loaded, budget = packed(spec, steps, lora)
    theirs = trainer(spec, rows, lora, batch, options.trainer_batch)
    seconds = interleave({"packed": ours, "trainer": theirs}, options.rounds, progress=print)
    result = {
        **provenance(),
        "model": model_facts(loaded),
        "rows": {
            "file": options.rows.name,
            "n_rows": len(rows),
            "n_steps": len(steps),
            "batch": batch,
            "trainer_batch": math.ceil(batch / math.ceil(batch / options.trainer_batch)),
            "prompt_tokens_per_row": sum(len(row.prompt) for row in rows) / len(rows),
            "tokens": sum(len(row.read) for row in rows),
            "tokens_computed": sum(len(pack.tree) for step in steps for pack in make_packs(step, budget)),
        },
        "lora_rank": options.rank,
        "threads": torch.get_num_threads(),
        "rows_per_second": {name: Summary.of(rates(times, len(rows))).to_dict() for name, times in seconds.items()},
        "packed_over_trainer": Summary.of(ratios(seconds["trainer"], seconds["packed"])).to_dict(),
    }
    write(options.out, result)
    print(
        f"packed {result['rows_per_second']['packed']['median']} rows/s, "
        f"Trainer {result['rows_per_second']['trainer']['median']}: {result['packed_over_trainer']['median']} times"
    )
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", default=EMBEDDED_BASE)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--batch-rows", type=int, default=8)
    parser.add_argument("--trainer-batch", type=int, default=16, help="padded rows (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=160, help="rows (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    return parser


if __name__ == "__main__":
    keep_freed_memory()  # as the command line does
    main()
