"""Tables of the committed benchmark results: what was measured, on which machine, at which commit.

A kind of result that has no table of its own here is shown as it is, so that a new file never goes missing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markdown_tables import cell, table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FOLDER = Path(__file__).parents[2] / "benchmarks" / "results"


def rivals() -> str:
    """The suite's main tables: the engine, each rival, and the limit of the machine."""
    runs = [run for _, run in results("suite")]
    parts = [f"{_rival_table(run['main'])}\n\n{_suite_facts(run)}" for run in runs]
    return "\n\n".join(parts) + sources("suite") if parts else "Not measured yet."


def _rival_table(main: dict[str, Any]) -> str:
    rates = ("pairs_per_second", "documents_per_second")
    rows = [("the packed engine", *(spread(main[rate]) for rate in rates), "1")]
    for name, rival in main["rivals"].items():
        speeds = (spread(rival[rate]) if rate in rival else "" for rate in rates)
        rows.append((f"`{name}`: {cell(rival['about'])}", *speeds, spread(rival["ours_is_times_as_fast"])))
    return table(("who", "pairs a second", "sentences a second", "the engine is … times as fast"), rows)


def _suite_facts(run: dict[str, Any]) -> str:
    main = run["main"]
    tokens, share = main["tokens"], main["limit"]["share_reached"]
    facts = [
        f"**{run['shots']} demonstrations, {run['model']['dtype']}{_sharing(main)}**: {main['pairs']:,} pairs of "
        f"{main['documents']} sentences, {tokens['in_prompts']:,} tokens in the prompts, "
        f"{tokens['computed']:,} computed ({tokens['computed_a_pair']:.1f} a pair).",
        f"{share['median']:.0%} of the limit ({share['min']:.0%} to {share['max']:.0%}). {_time(main)}",
        f"Loading takes {run['load_seconds']:.1f} s, the first answer after it {main['first_answer_seconds']:.2f} s; "
        f"the process held {main['memory']['process_peak_mib']:,.0f} MiB at most.",
        *_not_run(run),
    ]
    return "\n\n".join(facts)


def _sharing(main: dict[str, Any]) -> str:
    documents = main.get("documents_a_pass", 1)
    return f", {documents} documents at a time" if documents > 1 else ""


def _time(main: dict[str, Any]) -> str:
    parts = main["time"]["shares"].items()
    return "Where the time goes: " + ", ".join(f"{name} {part:.0%}" for name, part in parts) + "."


def _not_run(run: dict[str, Any]) -> list[str]:
    return [f"Not run: {name}. {cell(why)}" for name, why in run["not_run"].items()]


def gpu() -> str:
    """Speed and memory on a GPU by pack size, and the rivals beside the default size."""
    parts = [_gpu_run(run) for _, run in results("gpu")]
    return "\n\n".join(parts) + sources("gpu") if parts else "Not measured yet."


def _gpu_run(run: dict[str, Any]) -> str:
    packs = sorted((int(size), pack) for size, pack in run["packs"].items())
    head = ("tokens of a pack", "pairs a second", "tokens computed a pair", "share of the limit", "peak allocated, MiB")
    parts = [table(head, [_gpu_row(size, pack, size == run["default_pack"]) for size, pack in packs])]
    # The rivals ran beside one size, which is the default's wherever that was measured.
    parts += [_gpu_rivals(size, pack) for size, pack in packs if pack["rivals"]]
    return "\n\n".join([*parts, *_not_run(run)])


def _gpu_row(size: int, pack: dict[str, Any], is_default: bool) -> tuple[str, ...]:
    share = pack["limit"]["share_reached"]
    peak = pack["memory"].get("cuda_peak_allocated_mib")
    return (
        f"{size:,} (default)" if is_default else f"{size:,}",
        spread(pack["pairs_per_second"]),
        f"{pack['tokens']['computed_a_pair']:.1f}",
        f"{share['median']:.0%} ({share['min']:.0%} to {share['max']:.0%})",
        "" if peak is None else f"{peak:,.0f}",
    )


def _gpu_rivals(size: int, pack: dict[str, Any]) -> str:
    counts = ", ".join(f"{rival['pairs']} by `{name}`" for name, rival in pack["rivals"].items())
    return (
        f"At packs of {size:,} tokens, {pack['pairs']:,} pairs of {pack['documents']} documents by the engine, "
        f"{counts}, in turn:\n\n{_rival_table(pack)}\n\n{_time(pack)}"
    )


def sweeps() -> str:
    """What the speed depends on, one property at a time."""
    head = ("pairs", "pairs a second", "tokens computed a pair", "share of the limit")
    found = [sweep for _, run in results("suite") for sweep in run["sweeps"].items()]
    parts = [table((name, *head), map(_sweep_row, points)) for name, points in found]
    return "\n\n".join(parts) or "Not measured yet."


def _sweep_row(point: dict[str, Any]) -> tuple[str, ...]:
    if "not_run" in point:
        return (str(point["value"]), "", cell(point["not_run"]), "", "")
    return (
        str(point["value"]),
        str(point["pairs"]),
        spread(point["pairs_per_second"]),
        f"{point['tokens']['computed_a_pair']:.1f}",
        f"{point['limit']['share_reached']['median']:.0%}",
    )


def exactness() -> str:
    """How far the packed engine's scores are from those of one prompt at a time."""
    rows = [
        (
            f"`{run['scoring']}`",
            str(run["pairs"]),
            f"{run['largest_difference_of_a_score']:.1e}",
            f"{run['equal_best_labels']} of {run['pairs']}",
            f"{run['tokens_of_the_reference']:,} → {run['tokens_of_the_packed_engine']:,}",
        )
        for _, run in results("exactness")
    ]
    head = ("scoring", "pairs", "largest difference of a score", "equal best labels", "tokens computed")
    return table(head, rows) + sources("exactness")


def training() -> str:
    """Rows a second in training, beside a trainer that pads."""
    rows = []
    for _, run in results("training_speed"):
        sizes = f"{run['rows']['tokens']:,} → {run['rows']['tokens_computed']:,}"
        speeds = [spread(run["rows_per_second"][who]) for who in ("packed", "trainer")]
        in_step = f"{run['rows']['n_rows'] / run['rows']['n_steps']:.0f}"
        processor = run["machine"]["processor"].replace("(R)", "")
        rows.append((run["rows"]["file"], processor, in_step, sizes, *speeds, spread(run["packed_over_trainer"])))
    head = (
        "rows",
        "processor",
        "rows of a step",
        "tokens of the rows → computed",
        "rows a second, packed",
        "rows a second, trainer",
        "times",
    )
    return table(head, rows) + sources("training_speed")


def soak() -> str:
    """Memory and time of a process that goes on for long."""
    rows = []
    for _, run in results("soak"):
        first, last = run["samples"][0], run["samples"][-1]
        seconds = f"{run['golden_seconds_first']:.3f} → {run['golden_seconds_last']:.3f}"
        memory = f"{first['mib']:,.0f} → {last['mib']:,.0f}"
        rows.append((f"{run['docs']:,}", memory, f"{run['growth_mib']:.0f}", seconds, str(len(run["problems"]))))
    head = (
        "documents",
        "MiB, at first → at the end",
        "MiB more after the first fifth",
        "CPU seconds of 20 documents, then → at the end",
        "problems",
    )
    return table(head, rows) + sources("soak")


def outside() -> str:
    """What everything around the model costs."""
    rows = []
    for _, run in results("outside"):
        for n, apart in run["entities"].items():
            for kind, measured in (("one by one", apart), ("in shared packs", apart["pooled"])):
                shares = (f"{share:.1%}" for share in measured["share_of_the_time"].values())
                rows.append((n, kind, spread(measured["pairs_per_second_per_core"]), *shares))
    head = (
        "entities of a document",
        "documents",
        "pairs a second and core",
        "share of the time beside 50 pairs/s",
        "beside 3,000 pairs/s",
    )
    return table(head, rows) + sources("outside") if rows else "Not measured yet."


def others() -> str:
    """Results of kinds that have no table above."""
    kinds = ("suite", "gpu", "exactness", "training_speed", "soak", "outside")
    shown = [name for kind in kinds for name, _ in results(kind)]
    parts = []
    for name, run in results(""):
        if name not in shown:
            rows = [(f"`{key}`", value) for key, value in flat(run) if key not in ("command", "commit", "date")]
            parts.append(f'??? note "{name}"\n\n' + indented(f"{origin(name)}\n\n{table(('what', 'value'), rows)}"))
    return "\n\n".join(parts) or "There are none."


def results(kind: str) -> list[tuple[str, dict[str, Any]]]:
    """Names and contents of the results of a kind."""
    return [(path.stem, json.loads(path.read_text("utf8"))) for path in sorted(FOLDER.glob(f"{kind}*.json"))]


def spread(measured: dict[str, float]) -> str:
    """A median with its range."""
    median, least, most = (
        f"{measured[name]:,.0f}" if measured[name] >= 1000 else f"{measured[name]:.1f}"
        for name in ("median", "min", "max")
    )
    return f"{median} ({least} to {most})"


def origin(name: str) -> str:
    """File, day and commit of a result."""
    run = json.loads((FOLDER / f"{name}.json").read_text("utf8"))
    return f"`{name}.json`, {str(run.get('date', '?'))[:10]}, commit `{str(run.get('commit', '?'))[:8]}`"


def sources(kind: str) -> str:
    """Where results of a kind are from: machines, files and commits, and the commands."""
    runs = results(kind)
    measured = [run for _, run in runs if "machine" in run]
    on = dict.fromkeys(f"Machine: {machine(run['machine'])}; {run['threads']} threads." for run in measured)
    origins = "\n".join(f"- {origin(name)}" for name, _ in runs)
    commands = "\n".join(str(run["command"]) for _, run in runs)
    return "\n\n" + "\n".join(on) + f"\n\n{origins}\n\n```bash\n{commands}\n```"


def machine(facts: str | dict[str, Any]) -> str:
    """A machine in words."""
    if isinstance(facts, str):
        return facts
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in flat(facts))


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Every plain value of nested ones, with the way to it."""
    items: Sequence[tuple[Any, Any]]
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return [(name, cell(f"{value:.4g}" if isinstance(value, float) else str(value)))]
    return [pair for key, inner in items for pair in flat(inner, f"{name}.{key}" if name else str(key))]


def indented(text: str) -> str:
    """Text inside a block of an admonition."""
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())


TABLES: dict[str, Callable[[], str]] = {
    "benchmark-rivals": rivals,
    "benchmark-gpu": gpu,
    "benchmark-sweeps": sweeps,
    "benchmark-exactness": exactness,
    "benchmark-training": training,
    "benchmark-soak": soak,
    "benchmark-outside": outside,
    "benchmark-others": others,
}
