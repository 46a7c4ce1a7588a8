"""The command `benchmark`: how fast this machine answers, and where the time goes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003  # typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spacy_relx.cli._common import Config, Debug, Labels, ModelPreset, Quiet, errors_as_messages, stderr
from spacy_relx.cli._pipeline import FACTORY, component_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spacy.language import Language

#: Demonstrations that fit any labels; which label they are given makes no difference to the speed.
_EXAMPLES = (
    {"text": "Ada Stone runs Harbor Mills.", "head": "Ada Stone", "tail": "Harbor Mills"},
    {"text": "Oslo is the capital of Norway.", "head": "Oslo", "tail": "Norway"},
    {"text": "Ivo Kern was born in Lyon.", "head": "Ivo Kern", "tail": "Lyon"},
    {"text": "Delta Press belongs to Acme Steel.", "head": "Delta Press", "tail": "Acme Steel"},
)


class DType(StrEnum):
    """Number formats of the computation."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


def benchmark(
    labels: Labels = None,
    model_preset: ModelPreset = None,
    config: Config = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "-d",
            metavar="FILE.spacy",
            exists=True,
            dir_okay=False,
            help="Documents with entities (a DocBin); made-up ones are used without.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Documents.")] = 12,
    entities: Annotated[int, typer.Option(min=2, max=200, help="Entities of a made-up document.")] = 4,
    shots: Annotated[int, typer.Option(min=0, max=len(_EXAMPLES), help="Demonstrations in a prompt.")] = 0,
    dtype: Annotated[DType | None, typer.Option(help="Number format; the model block's if left out.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch; its own choice if left out.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds, after one that is not.")] = 3,
    rivals: Annotated[
        str, typer.Option(metavar="card,batched|none", help="What is run in turn with it, on the same model.")
    ] = "card,batched",
    rival_pairs: Annotated[int, typer.Option(min=1, help="Pairs the rivals are given; they are slow.")] = 8,
    batch: Annotated[int, typer.Option(min=1, help="Prompts at a time of the rival 'batched'.")] = 8,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE.json", help="Write all of it.")] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure pairs per second, what the rest of the machine could do, and where the time goes.

    Takes about a minute on a laptop. Without options: the embedded model, made-up documents and general labels.
    """
    with errors_as_messages(debug):
        from spacy_relx.errors import ConfigError

        chosen = [] if rivals == "none" else [name.strip() for name in rivals.split(",")]
        unknown = sorted(set(chosen) - {"card", "batched"})
        if unknown:
            raise ConfigError(f"--rivals has {', '.join(unknown)}. Expected card, batched, or none.")
        import torch

        from spacy_relx.benchmark.component import benchmark as measure
        from spacy_relx.benchmark.component import read_docs, to_docs
        from spacy_relx.benchmark.documents import made_up
        from spacy_relx.benchmark.machine import model_facts, provenance
        from spacy_relx.shim import engine_shim

        if threads is not None:
            torch.set_num_threads(threads)
        nlp = _pipeline(component_settings(labels, None, model_preset, config), shots, dtype)
        component = nlp.get_pipe(FACTORY)
        docs = read_docs(data, nlp.vocab, limit) if data else to_docs(made_up(limit, entities), nlp.vocab)
        console = stderr()
        result = measure(
            component,
            docs,
            rounds=rounds,
            rivals=chosen,
            rival_pairs=rival_pairs,
            batch=batch,
            progress=None if quiet else console.print,
        )
        work = {"data": data.name if data else f"made up, {entities} entities each", "labels": len(component.schema)}
        loaded: Any = engine_shim(component.model).engine.loaded
        result = {**provenance(), "model": model_facts(loaded), **work, "shots": shots, **result}
        _show(result)
        if out is not None:
            _write(out, result)


def _pipeline(settings: dict[str, Any], shots: int, dtype: DType | None) -> Language:
    import spacy

    nlp = spacy.blank("en")
    if dtype is not None:
        model = settings.get("model") or {"@architectures": "spacy-relx.SmolLM2.v1"}
        settings = {**settings, "model": {**model, "dtype": dtype.value}}
    if shots:
        # The labels are known once the component is there; the demonstrations have to name some of them.
        names = spacy.blank("en").add_pipe(FACTORY, config=settings).labels
        examples = [{**example, "label": names[i % len(names)]} for i, example in enumerate(_EXAMPLES[:shots])]
        prompt = settings.get("prompt") or {"@misc": "spacy-relx.GenTunePrompt.v1"}
        settings = {**settings, "prompt": {**prompt, "examples": examples}}
    nlp.add_pipe(FACTORY, config=settings)
    return nlp


def _show(result: Mapping[str, Any]) -> None:
    from spacy_relx.cli._tables import make_table, show

    def spread(summary: Mapping[str, float], unit: str = "") -> str:
        return f"{summary['median']:g}{unit} ({summary['min']:g}-{summary['max']:g})"

    def percent(summary: Mapping[str, float]) -> str:
        return f"{summary['median']:.0%} ({summary['min']:.0%}-{summary['max']:.0%})"

    model, machine, tokens = result["model"], result["machine"], result["tokens"]
    where = machine.get("gpu") if model["device"] == "cuda" else machine["processor"]
    title = f"{model['base']}, {model['dtype']}, {where}, {result['threads']} threads"
    rows = [
        ["pairs a second", spread(result["pairs_per_second"])],
        ["documents a second", spread(result["documents_per_second"])],
        ["pairs, documents", f"{result['pairs']}, {result['documents']}"],
        ["tokens computed a pair, of", f"{tokens['computed_a_pair']:g}, {tokens['in_prompts'] / result['pairs']:.0f}"],
        ["share of the matrix-product limit", percent(result["limit"]["share_reached"])],
        ["matrix products, Gflop a second", spread(result["limit"]["gflop_per_second"])],
        *(
            [f"times as fast as {name}", spread(rival["ours_is_times_as_fast"])]
            for name, rival in result["rivals"].items()
        ),
        ["load, seconds", f"{result['load_seconds']:.2f}"],
        ["first answer, seconds", f"{result['first_answer_seconds']:.2f}"],
        ["peak memory, MiB", ", ".join(f"{value:.0f} {_place(name)}" for name, value in result["memory"].items())],
    ]
    show(make_table(title, ["", f"median of {result['pairs_per_second']['n']} (least-most)"], rows))
    parts = [[name, f"{share:.1%}"] for name, share in result["time"]["shares"].items()]
    show(make_table("Where the time goes", ["", "share"], parts))


def _place(name: str) -> str:
    return {"process_peak_mib": "process", "cuda_peak_allocated_mib": "allocated"}.get(name, "reserved")


def _write(path: Path, result: Mapping[str, Any]) -> None:
    import json

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf8")
