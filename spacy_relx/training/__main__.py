"""Trains a LoRA adapter on exported rows: `python -m spacy_relx.training ROWS.jsonl OUT`. Needs no spaCy."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from spacy_relx.engine.allocator import keep_freed_memory
from spacy_relx.engine.spec import DTYPES, EMBEDDED_BASE, QUANTIZATIONS, ModelSpec
from spacy_relx.errors import RelxError
from spacy_relx.training.curves import draw_rows_run
from spacy_relx.training.lora_settings import LoraSettings
from spacy_relx.training.rows import read_rows
from spacy_relx.training.trainer import SCHEDULES, Trainer, TrainerSettings


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return _train(options)
    except RelxError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from the last checkpoint.", file=sys.stderr)  # noqa: T201
        return 130


def _train(options: argparse.Namespace) -> int:
    from spacy_relx.engine.loading import load_model

    groups = list(read_rows(options.rows))
    dev = list(read_rows(options.dev)) if options.dev is not None else []
    settings = TrainerSettings(**{field.name: getattr(options, field.name) for field in fields(TrainerSettings)})
    spec = ModelSpec(
        base=options.base,
        adapter=options.adapter,
        quantization=options.quantization,
        dtype=options.dtype,
        device=options.device,
        merge_adapter=False,
    )
    lora = LoraSettings(options.rank, options.alpha)
    trainer = Trainer(
        load_model(spec, trainable=True), groups, options.out, settings, lora, dev, options.template_kwargs
    )
    n_rows = sum(map(len, groups))
    _say(f"{len(groups)} groups, {n_rows} rows, {trainer.n_steps} steps" + (", resumed" if trainer.is_resumed else ""))
    trainer.run(lambda line: _tell(line, options.log_every))
    curves = draw_rows_run(options.out)
    _say(f"adapter: {options.out / 'adapter'}" + (f", curves: {curves}" if curves else ""))
    return 0


def _tell(line: dict[str, Any], every: int) -> None:
    if line["step"] % every and "dev" not in line and line["step"] != line["of"]:
        return
    rate = line["n_rows"] / line["seconds"] if line["seconds"] else 0.0
    text = f"{line['step']}/{line['of']}  loss {line['loss']:.4f}  {rate:.1f} rows/s  {line['total_seconds']:.0f} s"
    if "dev" in line:
        text += f"  dev loss {line['dev']['loss']:.4f} accuracy {line['dev']['accuracy']:.4f}"
    _say(text)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m spacy_relx.training",
        description="Train a LoRA adapter on rows, packed by the prefixes that they share. The same command goes on "
        "after a kill.",
    )
    parser.add_argument("rows", type=Path, help="rows as `spacy relx rows` writes them (JSONL)")
    parser.add_argument("out", type=Path, help="folder for the adapter, the log and the checkpoint")
    parser.add_argument("--dev", type=Path, help="development rows; the best adapter on them is kept in OUT/best")
    parser.add_argument("--base", default=EMBEDDED_BASE, help="base model (default: %(default)s)")
    parser.add_argument("--adapter", help="an adapter to go on from; its own shape then counts")
    parser.add_argument("--quantization", choices=QUANTIZATIONS, default="none")
    parser.add_argument("--dtype", choices=DTYPES, default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--alpha", type=float, default=32.0)
    parser.add_argument(
        "--template-kwargs",
        type=json.loads,
        help="variables of the chat template, as JSON, as in prompt.template_kwargs",
    )
    parser.add_argument("--log-every", type=int, default=10, help="steps between two lines (default: %(default)s)")
    defaults = TrainerSettings()
    for field in fields(TrainerSettings):
        default = getattr(defaults, field.name)
        option = f"--{field.name.replace('_', '-')}"
        if isinstance(default, bool):
            parser.add_argument(option, action="store_true", help="compute layers again instead of keeping them")
            continue
        kind: Any = int if field.name == "max_pack_tokens" else type(default)
        choices = SCHEDULES if field.name == "schedule" else None
        parser.add_argument(
            option,
            type=kind,
            default=default,
            choices=choices,
            help=f"(default: {default})",
        )
    return parser


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
