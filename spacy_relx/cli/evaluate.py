"""The command `evaluate`: asks a model about annotated documents, and scores, tunes and compares what it answered."""

from __future__ import annotations

from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spacy_relx.cli._common import Debug, Quiet, errors_as_messages, stderr, stdout
from spacy_relx.cli._pipeline import component_name, component_settings, load_pipeline
from spacy_relx.cli._tables import figure, make_table, show, with_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from spacy.tokens import Doc

    from spacy_relx.evaluation.metrics import Decision

app = typer.Typer(
    name="evaluate",
    help="Ask a model about annotated documents, and score, tune and compare what it answered.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class ProtocolName(StrEnum):
    """Which pairs are asked about."""

    GIVEN = "given"
    GOLD_ENTITIES = "gold_entities"
    PREDICTED_ENTITIES = "predicted_entities"


class DecodingName(StrEnum):
    """How the model answers."""

    CONSTRAINED = "constrained"
    FREE = "free"


Labels = Annotated[
    str | None,
    typer.Option("--labels", "-l", metavar="NAME|FILE", help="The relations: a packaged schema, or a JSON file."),
]
ModelPreset = Annotated[str | None, typer.Option(metavar="SmolLM2|Llama32GenTune", help="The model that is asked.")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE.cfg",
        exists=True,
        dir_okay=False,
        help="A config with a block [components.llama_relation_extractor]; the options above win over it.",
    ),
]
NoRelation = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|null",
        help="The negative label. Left out: the label set's own; if it has none, none with given pairs, else "
        "no_relation.",
    ),
]
Limit = Annotated[int, typer.Option("--limit", "-n", min=0, help="Most documents to read; 0 for all.")]
Runs = Annotated[list[Path], typer.Argument(metavar="RUN.jsonl…", exists=True, dir_okay=False)]


@app.callback(invoke_without_command=True)
def evaluate(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FILE.spacy", help="Annotated documents: a DocBin with gold relations."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="RUN.jsonl", help="Where to write records.")
    ] = None,
    protocol: Annotated[
        ProtocolName,
        typer.Option(
            help="given: the annotated pairs, as published. gold_entities: all candidate pairs of annotated entities. "
            "predicted_entities: those of the entities that the pipeline finds."
        ),
    ] = ProtocolName.GIVEN,
    dataset: Annotated[str | None, typer.Option(help="Name of the data set; the file's name if left out.")] = None,
    split: Annotated[str, typer.Option(help="dev, test, …; thresholds are never chosen on test.")] = "test",
    pipeline: Annotated[
        str | None,
        typer.Option(
            "--pipeline",
            "-p",
            help="A spaCy pipeline: its name, its folder, or blank:LANG. Left out: blank:en, or en_core_web_sm for "
            "predicted entities.",
        ),
    ] = None,
    labels: Labels = None,
    model_preset: ModelPreset = None,
    config: Config = None,
    no_relation: NoRelation = None,
    decoding: Annotated[DecodingName | None, typer.Option(help="How the model answers.")] = None,
    types: Annotated[
        bool | None,
        typer.Option(
            "--types/--no-types",
            help="Whether the labels' entity types limit pairs and answers. Left out: not with given pairs.",
        ),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(metavar="FILE.spacy", help="Training documents: scores are given without their sentences too."),
    ] = None,
    spans_key: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Take mentions from this span group, not from the entities; converted data sets have all of theirs, "
            "overlapping ones too, in `gold`.",
        ),
    ] = None,
    directed: Annotated[
        bool | None,
        typer.Option(
            "--directed/--undirected",
            help="Ask about both orders of a pair, or only in text order, for labels that name the direction "
            "themselves. Left out: as the component does.",
        ),
    ] = None,
    limit: Limit = 0,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Ask a model about annotated documents, write what it answered, and print the scores.

    No threshold applies here; `evaluate score` takes one, and `evaluate threshold` finds it on development data.
    """
    if context.invoked_subcommand is not None:
        return
    with errors_as_messages(debug):
        if data is None or out is None:
            raise typer.BadParameter("Expected --data FILE.spacy and --out RUN.jsonl, or one of the commands below.")
        from spacy_relx.evaluation.leaks import training_sentences
        from spacy_relx.evaluation.records import write_records
        from spacy_relx.evaluation.run import evaluate as run
        from spacy_relx.evaluation.summary import summarise

        settings = _settings(labels, model_preset, config, no_relation, protocol, pipeline)
        if decoding is not None:
            settings["decoding"] = decoding.value
        chosen = {"spans_key": spans_key, "directed": directed}
        if wanted := {name: value for name, value in chosen.items() if value is not None}:
            candidates = settings.get("candidates") or {"@misc": "spacy-relx.EntityPairs.v1"}
            settings["candidates"] = {**candidates, **wanted}
        default = "en_core_web_sm" if protocol is ProtocolName.PREDICTED_ENTITIES else "blank:en"
        nlp = load_pipeline(pipeline or default, settings)
        docs = _read_docs(data, nlp.vocab, limit)
        known = training_sentences(_read_docs(train, nlp.vocab)) if train is not None else None
        with _progress(len(docs), quiet) as tell:
            info, stream = run(
                nlp,
                docs,
                protocol.value,
                dataset=dataset or data.stem,
                split=split,
                use_types=types,
                train=known,
                settings={"pipeline": pipeline or default, "data": str(data)},
                progress=tell,
            )
            records = list(stream)
        write_records(out, info, records)
        _warn_of_unknown(info.counts)
        if not quiet:
            _show_runs([(str(out), summarise(info, records))])
            stderr().print(f"{info.counts['n_asked']} pairs in {info.counts['seconds']:.1f} s; records in {out}.")


@app.command("score")
def score_runs(
    runs: Runs,
    threshold: Annotated[float, typer.Option(min=0.0, max=1.0, help="The lowest score a relation may have.")] = 0.0,
    thresholds: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", exists=True, dir_okay=False, help="What `evaluate threshold` wrote."),
    ] = None,
    per_label: Annotated[bool, typer.Option("--per-label", help="Print a table of the labels too.")] = False,
    output: Annotated[Path | None, typer.Option("--json", metavar="FILE.json", help="Write all figures.")] = None,
    rounds: Annotated[int, typer.Option(min=0, help="Resamples of the confidence intervals; 0 for none.")] = 1000,
    debug: Debug = False,
) -> None:
    """Score records of earlier runs; the model is not asked again.

    Each protocol has a table of its own.
    """
    with errors_as_messages(debug):
        from spacy_relx.evaluation.records import read_records
        from spacy_relx.evaluation.summary import summarise

        summaries = []
        for path in runs:
            info, records = read_records(path)
            decision = _decision(threshold, thresholds, info.negative)
            summaries.append((str(path), summarise(info, records, decision, n_rounds=rounds)))
        _show_runs(summaries)
        if per_label:
            for name, summary in summaries:
                _show_labels(name, summary)
        if output is not None:
            _write_json(output, [{"run": name, **summary} for name, summary in summaries])


@app.command("threshold")
def threshold_of_run(
    source: Annotated[Path, typer.Argument(metavar="DEV.jsonl", exists=True, dir_okay=False)],
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE.json", help="Where to write them.")] = None,
    labels_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Write the label set with its thresholds too, for --labels."),
    ] = None,
    per_label: Annotated[
        bool, typer.Option("--per-label/--common", help="A threshold for each label, or one for all.")
    ] = True,
    min_gold: Annotated[int, typer.Option(min=1, help="Least gold relations of a label with its own.")] = 10,
    debug: Debug = False,
) -> None:
    """Find the thresholds with the best micro-F in records of development data.

    A run on test data is refused. Nothing is asked again.
    """
    with errors_as_messages(debug):
        from spacy_relx.evaluation.records import read_records
        from spacy_relx.evaluation.thresholds import find_thresholds

        info, records = read_records(source)
        found = find_thresholds(info, records, per_label=per_label, min_gold=min_gold)
        if out is not None:
            found.write(out)
        if labels_out is not None:
            found.write_schema(labels_out)
        steps = [("none", found.before), ("one for all labels", found.common), ("by label", found.after)]
        rows = [(name, figure(c.p), figure(c.r), figure(c.f)) for name, c in steps[: None if per_label else 2]]
        show(make_table(f"{info.dataset} {info.split}, {info.protocol}", ("thresholds", "P", "R", "F"), rows))
        if found.threshold is None:
            stderr().print("No threshold gives a right answer, so none is set.")
            return
        values = [("all others" if found.labels else "all", figure(found.threshold))]
        values += [(label, figure(value)) for label, value in found.labels.items()]
        show(make_table("", ("label", "threshold"), values))


@app.command("compare")
def compare_runs(
    first: Annotated[Path, typer.Argument(metavar="A.jsonl", exists=True, dir_okay=False)],
    second: Annotated[Path, typer.Argument(metavar="B.jsonl", exists=True, dir_okay=False)],
    threshold: Annotated[float, typer.Option(min=0.0, max=1.0, help="The lowest score a relation may have.")] = 0.0,
    rounds: Annotated[int, typer.Option(min=1, help="Resamples, and random swaps.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the random numbers.")] = 0,
    output: Annotated[Path | None, typer.Option("--json", metavar="FILE.json", help="Write all figures.")] = None,
    debug: Debug = False,
) -> None:
    """Test whether two runs on the same documents differ.

    The interval is a paired bootstrap over documents, the p-value approximate randomisation over documents.
    """
    with errors_as_messages(debug):
        from spacy_relx.errors import DataError
        from spacy_relx.evaluation.bootstrap import compare
        from spacy_relx.evaluation.metrics import tally_documents
        from spacy_relx.evaluation.records import read_records

        runs = [read_records(path) for path in (first, second)]
        (a, _), (b, _) = runs
        if (a.dataset, a.split, a.protocol) != (b.dataset, b.split, b.protocol):
            raise DataError(
                f"{first} is {a.dataset} {a.split} under {a.protocol}, and {second} is {b.dataset} {b.split} under "
                f"{b.protocol}. Expected two runs of one task."
            )
        tallies = [tally_documents(info, records, _decision(threshold, None, info.negative)) for info, records in runs]
        result = compare(*tallies, n_rounds=rounds, seed=seed)
        difference = result.difference
        rows = [
            (str(first), figure(result.first)),
            (str(second), figure(result.second)),
            ("difference", with_interval(difference.value, difference.to_dict())),
            ("p", figure(result.p_value, 4)),
        ]
        title = f"{a.dataset} {a.split}, {a.protocol}: micro-F on {result.n_docs} documents"
        show(make_table(title, ("run", "F [95 %]"), rows))
        if output is not None:
            _write_json(output, {"runs": [str(first), str(second)], **result.to_dict()})


@app.command("prompts")
def compare_prompts(
    data: Annotated[Path, typer.Option("--data", metavar="FILE.spacy", help="Annotated documents.")],
    labels: Labels = None,
    model_preset: ModelPreset = None,
    config: Config = None,
    no_relation: NoRelation = None,
    protocol: Annotated[ProtocolName, typer.Option(help="given or gold_entities.")] = ProtocolName.GIVEN,
    train: Annotated[
        Path | None, typer.Option(metavar="FILE.spacy", help="Where the two demonstrations are taken from.")
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", exists=True, dir_okay=False, help="Or the demonstrations themselves."),
    ] = None,
    system: Annotated[
        list[str] | None, typer.Option(help="Only this system text; may be given more than once.")
    ] = None,
    cue: Annotated[list[str] | None, typer.Option(help="Only this cue; may be given more than once.")] = None,
    decoding: Annotated[
        list[DecodingName] | None, typer.Option(help="Only this decoding; may be given more than once.")
    ] = None,
    limit: Limit = 100,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write each variant's records here.")] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare the published wordings on the same pairs: system text, cue, demonstrations, decoding.

    Without --train or --examples there are no demonstrations. The best variant comes first.
    """
    with errors_as_messages(debug):
        from spacy_relx.evaluation.metrics import score
        from spacy_relx.evaluation.prompt_variants import (
            CUES,
            DECODINGS,
            N_EXAMPLES,
            choose_examples,
            compare_variants,
            variants,
        )
        from spacy_relx.evaluation.records import write_records
        from spacy_relx.prompts import SYSTEM_PRESETS, make_gentune_prompt

        if protocol is ProtocolName.PREDICTED_ENTITIES:
            raise typer.BadParameter("--protocol is predicted_entities. Expected given or gold_entities.")
        for name in system or ():
            if name not in SYSTEM_PRESETS:
                raise typer.BadParameter(f"--system is {name!r}. Expected one of {', '.join(SYSTEM_PRESETS)}.")
        nlp = load_pipeline("blank:en", _settings(labels, model_preset, config, no_relation, protocol, None))
        component = nlp.get_pipe(component_name(nlp))
        docs = _read_docs(data, nlp.vocab, limit)
        shots: list[Any] = []
        if examples is not None:
            shots = list(make_gentune_prompt(examples=str(examples)).examples)
        elif train is not None:
            negative = component.settings.no_relation
            shots = choose_examples(_read_docs(train, nlp.vocab), labels=component.labels, negative=negative)
        asked = variants(
            systems=system or SYSTEM_PRESETS,
            cues=cue or CUES,
            n_examples=(0, N_EXAMPLES) if len(shots) >= N_EXAMPLES else (0,),
            decodings=tuple(d.value for d in decoding) if decoding else DECODINGS,
        )
        rows = []
        with _progress(len(asked), quiet, "Variants") as tell:
            stream = compare_variants(
                component,
                docs,
                asked,
                protocol=protocol.value,  # type: ignore[arg-type]
                examples=shots,
                dataset=data.stem,
                split="dev",
            )
            for number, (variant, info, records) in enumerate(stream, 1):
                scores = score(info, records)
                rows.append((scores.micro.f, variant, scores, info.counts["seconds"]))
                tell(number)
                if out is not None:
                    slug = f"{variant.system}-{variant.cue.strip(':').lower()}-{variant.n_examples}-{variant.decoding}"
                    write_records(out / f"{slug}.jsonl", info, records)
        rows.sort(key=lambda row: -row[0])
        show(
            make_table(
                f"{data.stem}, {protocol.value}, {len(docs)} documents, {rows[0][2].n_asked} pairs",
                ("system", "cue", "decoding", "examples", "F", "P", "R", "macro F", "outside", "seconds"),
                [
                    (
                        variant.system,
                        variant.cue,
                        variant.decoding,
                        str(variant.n_examples),
                        figure(scores.micro.f),
                        figure(scores.micro.p),
                        figure(scores.micro.r),
                        figure(scores.tally.macro_f),
                        str(scores.tally.n_outside),
                        f"{seconds:.1f}",
                    )
                    for _, variant, scores, seconds in rows
                ],
                n_text=3,
            )
        )


def _settings(
    labels: str | None,
    model_preset: str | None,
    config: Path | None,
    no_relation: str | None,
    protocol: ProtocolName,
    pipeline: str | None,
) -> dict[str, Any]:
    """The component's settings; a pipeline that has the component keeps its own."""
    from spacy_relx.schema import Schema, make_schema, parse_labels

    settings = component_settings(labels, None, model_preset, config)
    if no_relation is not None:
        settings["no_relation"] = None if no_relation == "null" else no_relation
    elif "no_relation" not in settings and (settings or pipeline is None):
        chosen = settings.get("labels")
        if isinstance(chosen, dict) and "@misc" in chosen:
            schema: Any = make_schema(**{key: value for key, value in chosen.items() if key != "@misc"})
        else:
            schema = parse_labels(chosen)
        own = schema.no_relation if isinstance(schema, Schema) else None
        if own is not None:
            settings["no_relation"] = own
        elif protocol is ProtocolName.GIVEN:
            settings["no_relation"] = None
    return settings


def _read_docs(path: Path, vocab: Any, limit: int = 0) -> list[Doc]:
    from itertools import islice

    from spacy_relx import relation
    from spacy_relx._inputs import load_docbin
    from spacy_relx.errors import DataError

    if not path.is_file():
        raise DataError(f"{str(path)!r} does not exist. Expected a .spacy file with gold relations.")
    relation.register()
    docs = list(islice(load_docbin(path).get_docs(vocab), limit or None))
    if not any(doc._.relations for doc in docs):
        raise DataError(f"{str(path)!r} has no gold relations in {len(docs)} documents. Expected some.")
    return docs


def _decision(threshold: float, file: Path | None, negative: str | None) -> Decision:
    import json

    from spacy_relx.errors import DataError
    from spacy_relx.evaluation.metrics import Decision

    if file is None:
        return Decision(threshold, negative=negative)
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        labels = {str(name): float(value) for name, value in data["labels"].items()}
        common = threshold if data["threshold"] is None else float(data["threshold"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{file} holds no thresholds: {error!r}. Expected what `evaluate threshold` writes.") from error
    return Decision(common, labels, negative)


def _show_runs(summaries: Iterable[tuple[str, dict[str, Any]]]) -> None:
    tables: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name, summary in summaries:
        tables.setdefault(summary["protocol"], []).append((name, summary))
    columns = (
        "run",
        "data",
        "micro F [95 %]",
        "P",
        "R",
        "macro F",
        "cand. recall",
        "FP rate",
        "ECE",
        "ceiling",
        "strict F",
        "pairs",
    )
    for protocol, group in tables.items():
        show(make_table(f"protocol {protocol}", columns, [_row(name, s) for name, s in group], n_text=2))
        for name, summary in group:
            leaks = summary["leaks"]
            if leaks is not None:
                stdout().print(
                    f"{name}: {leaks['n_sentences']} sentences ({leaks['n_pairs']} pairs) are in the training data "
                    f"too, {leaks['n_exact']} of them word for word; micro F {figure(leaks['micro_f'])} with them, "
                    f"{figure(leaks['micro_f_without'])} without."
                )
            if summary["semeval_official_macro_f"] is not None:
                stdout().print(f"{name}: official SemEval macro F {figure(summary['semeval_official_macro_f'], 4)}")


def _row(name: str, summary: dict[str, Any]) -> tuple[str, ...]:
    micro, measured = summary["micro"], summary["calibration"]["equal_width"]
    strict = summary["strict"]
    return (
        name,
        f"{summary['dataset']} {summary['split']}",
        with_interval(micro["f"], summary["intervals"].get("micro_f")),
        figure(micro["p"]),
        figure(micro["r"]),
        figure(summary["macro_f"]),
        figure(summary["candidate_recall"]),
        figure(summary["false_positive_rate"]),
        figure(measured["ece"] if measured is not None else None),
        figure(summary["ceiling"]["f"]),
        figure(strict["f"] if strict is not None else None),
        str(summary["n_asked"]),
    )


def _show_labels(name: str, summary: dict[str, Any]) -> None:
    rows = [
        (label, figure(c["p"]), figure(c["r"]), figure(c["f"]), str(c["gold"]), str(c["predicted"]))
        for label, c in sorted(summary["per_label"].items(), key=lambda item: -item[1]["gold"])
    ]
    show(make_table(name, ("label", "P", "R", "F", "gold", "predicted"), rows))


def _warn_of_unknown(counts: dict[str, Any]) -> None:
    unknown = counts.get("gold_labels_outside_schema")
    if unknown:
        shown = ", ".join(f"{label} ({n})" for label, n in list(unknown.items())[:5])
        stderr().print(
            f"{sum(unknown.values())} gold relations have labels that the schema lacks and can only be missed: {shown}"
            f"{', …' if len(unknown) > 5 else ''}. Give the data set's labels with --labels."
        )


def _write_json(path: Path, data: Any) -> None:
    import json

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def _progress(total: int, quiet: bool, what: str = "Documents") -> Iterator[Callable[[int], None]]:
    console = stderr()
    if quiet or not console.is_terminal:
        yield lambda done: None
        return

    from rich.progress import Progress

    with Progress(console=console) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
