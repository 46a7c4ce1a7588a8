"""What a large corpus takes: time, money, storage and lost work, from pairs a second and a few assumptions.

    python benchmarks/corpus_plan.py --documents 1e9

Prints Markdown. The speeds of a processor and of an H100 are read from measurements in benchmarks/results; those of
smaller GPUs are what-ifs, to be replaced with `--speed` by what `python -m spacy relx benchmark` says of your machine,
model and labels. Everything else is an assumption with an option of its own. An actor is one process: while the other
components of its pipeline work, the entity recogniser above all, its GPU waits.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

#: Bytes of a JSON line beside its text, and of one entity and one relation in it: counted on lines of `annotate`.
LINE, ENTITY, RELATION = 155, 100, 270
#: Size of Parquet with zstd beside JSON Lines without compression; an assumption.
PARQUET_SHARE = 0.3

#: Assumptions; prices differ by provider and by the day.
PROCESSOR_DOLLARS, GPU_DOLLARS, H100_DOLLARS = 0.08, 1.0, 3.0


@dataclass(frozen=True, slots=True)
class Speed:
    """An actor: its name, pairs a second, and dollars an hour."""

    name: str
    pairs_per_second: float
    dollars_per_hour: float


def main(arguments: list[str] | None = None) -> None:
    """Print the plan."""
    print(plan(_arguments(arguments)))


def plan(args: argparse.Namespace) -> str:
    """The plan as Markdown."""
    n_pairs = args.documents * args.pairs
    jsonl = args.documents * (args.text_bytes + LINE + ENTITY * args.entities + RELATION * args.relations)
    n_blocks = args.documents / args.block_size
    lines = [
        f"{_count(args.documents)} documents of {args.text_bytes:g} bytes, each with {args.pairs:g} pairs that the "
        f"labels' types allow: {_count(n_pairs)} pairs. Output with {args.entities:g} entities and {args.relations:g} "
        f"relations a document: {_bytes(jsonl)} as JSON Lines, about {_bytes(jsonl * PARQUET_SHARE)} as Parquet, in "
        f"{_count(n_blocks)} files of {_count(args.block_size)} documents. With {args.failing:g} failing documents in "
        f"a million, {_count(args.documents * args.failing / 1e6)} are listed with their errors. An actor dies every "
        f"{args.hours_between_deaths:g} hours, and a new one works after {args.start_seconds:g} seconds. A processor's "
        f"actor costs ${PROCESSOR_DOLLARS:g} an hour, an H100's ${H100_DOLLARS:g}, a smaller GPU's ${GPU_DOLLARS:g}. "
        f"The pipeline's other components do {args.rest:g} documents a second in each.",
        "",
        f"| an actor | pairs a second | actor hours | of them for pairs | dollars | days with {args.actors} actors | "
        "a block takes | actors that die | work done again |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(speed, n_pairs, args) for speed in args.speed]
    return "\n".join(lines)


def _row(speed: Speed, n_pairs: float, args: argparse.Namespace) -> str:
    for_pairs = n_pairs / speed.pairs_per_second / 3600
    hours = for_pairs + args.documents / args.rest / 3600
    block_hours = hours * args.block_size / args.documents
    deaths = hours / args.hours_between_deaths
    # A death costs half a block on average, and the start of a new actor.
    again = deaths * (block_hours / 2 + args.start_seconds / 3600)
    total = hours + again
    cells = [
        speed.name,
        f"{speed.pairs_per_second:g}",
        _count(total),
        f"{100 * for_pairs / total:.2g} %",
        _count(total * speed.dollars_per_hour),
        _count(total / args.actors / 24),
        f"{block_hours * 60:.3g} min",
        _count(deaths),
        f"{100 * again / hours:.2g} %",
    ]
    return f"| {' | '.join(cells)} |"


def _count(value: float) -> str:
    for size, name in ((1e12, " trillion"), (1e9, " billion"), (1e6, " million")):
        if value >= size:
            return f"{value / size:.3g}{name}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _bytes(value: float) -> str:
    return f"{value / 1e12:.3g} TB" if value >= 1e12 else f"{value / 1e9:.3g} GB"


def _measured() -> list[Speed]:
    processor, gpu = _result("suite.2shot.bfloat16")["main"], _result("gpu")
    of_default_pack = gpu["packs"][str(gpu["default_pack"])]
    return [
        Speed("2 threads, SmolLM2 (measured)", processor["pairs_per_second"]["median"], PROCESSOR_DOLLARS),
        Speed(
            "one H100, Llama-3.2-3B's shape in NF4 (measured)",
            of_default_pack["pairs_per_second"]["median"],
            H100_DOLLARS,
        ),
    ]


def _result(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf8"))
    return result


def _speed(text: str) -> Speed:
    name, pairs, dollars = text.rsplit(":", 2)
    return Speed(name, float(pairs), float(dollars))


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what_if = [Speed("a smaller GPU, if it does", pairs, GPU_DOLLARS) for pairs in (500.0, 1500.0)]
    parser.add_argument(
        "--speed", type=_speed, action="append", metavar="NAME:PAIRS_A_SECOND:DOLLARS_AN_HOUR", help="an actor"
    )
    parser.add_argument("--documents", type=float, default=1e9)
    parser.add_argument("--pairs", type=float, default=10, help="pairs of a document that the labels' types allow")
    parser.add_argument(
        "--rest", type=float, default=40, help="documents a second of an actor's other components; inf: there are none"
    )
    parser.add_argument("--text-bytes", type=float, default=1500)
    parser.add_argument("--entities", type=float, default=8, help="of a document")
    parser.add_argument("--relations", type=float, default=2, help="of a document")
    parser.add_argument("--block-size", type=float, default=10_000)
    parser.add_argument("--actors", type=int, default=64)
    parser.add_argument("--hours-between-deaths", type=float, default=500, help="of one actor, preemptions counted")
    parser.add_argument("--start-seconds", type=float, default=60, help="until a new actor works")
    parser.add_argument("--failing", type=float, default=10, help="documents in a million")
    args = parser.parse_args(arguments)
    args.speed = args.speed or [*_measured(), *what_if]
    return args


if __name__ == "__main__":
    main()
