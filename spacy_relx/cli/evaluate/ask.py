"""`evaluate` itself: asks a model about annotated documents, keeps the answers, prints the scores."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated, Any

import typer

from spacy_relx.cli._common import Config, Debug, Labels, ModelPreset, Quiet, errors_as_messages, stderr
from spacy_relx.cli._pipeline import component_name, entity_pipeline, load_pipeline
from spacy_relx.cli.evaluate._inputs import read_docs, read_entity_types, settings_for
from spacy_relx.cli.evaluate._options import DecodingName, Limit, NoRelation, ProtocolName
from spacy_relx.cli.evaluate._outputs import show_runs
from spacy_relx.cli.evaluate._recorder import Recorder


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
            help="given: the annotated pairs. gold_entities: all candidate pairs of annotated entities. "
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
    published: Annotated[
        bool,
        typer.Option(
            "--published",
            help="Ask as the published evaluation did: given pairs, the gold labels of the whole file listed, two "
            "demonstrations, free answers of at most 64 tokens. Such runs have tables of their own.",
        ),
    ] = False,
    demonstrations: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.spacy",
            help="With --published: training or development documents, from which the demonstrations are drawn.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="With --published: of the draw.")] = 0,
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
    entity_type: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PREDICTED=GOLD",
            help="What the data set calls an entity type of the pipeline, such as PERSON=Peop, for predicted entities; "
            "may be given more than once.",
        ),
    ] = None,
    limit: Limit = 0,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Ask a model about annotated documents, write what it answered, and print the scores.

    No threshold applies here; `evaluate score` takes one, and `evaluate threshold` finds it on development data. A run
    that was stopped or killed leaves RUN.jsonl.part, and the same command goes on from there.
    """
    if context.invoked_subcommand is not None:
        return
    with errors_as_messages(debug):
        if data is None or out is None:
            raise typer.BadParameter("Expected --data FILE.spacy and --out RUN.jsonl, or one of the commands below.")
        if published:
            _check_published(
                data, demonstrations, protocol, labels=labels, no_relation=no_relation, decoding=decoding, types=types
            )
        elif demonstrations is not None:
            raise typer.BadParameter("--demonstrations is given without --published. Expected both, or none.")
        from spacy_relx.evaluation.leaks import training_sentences
        from spacy_relx.evaluation.partial import identity
        from spacy_relx.evaluation.published import as_published
        from spacy_relx.evaluation.records import PUBLISHED, read_records
        from spacy_relx.evaluation.run import evaluate as run
        from spacy_relx.evaluation.summary import summarise

        settings = settings_for(labels, model_preset, config, no_relation, protocol, pipeline)
        if decoding is not None:
            settings["decoding"] = decoding.value
        chosen = {"spans_key": spans_key, "directed": directed}
        if wanted := {name: value for name, value in chosen.items() if value is not None}:
            candidates = settings.get("candidates") or {"@misc": "spacy-relx.EntityPairs.v1"}
            settings["candidates"] = {**candidates, **wanted}
        default = entity_pipeline() if protocol is ProtocolName.PREDICTED_ENTITIES else "blank:en"
        nlp = load_pipeline(pipeline or default, settings)
        docs = read_docs(data, nlp.vocab, limit)
        known = training_sentences(read_docs(train, nlp.vocab)) if train is not None else None

        component = nlp.get_pipe(component_name(nlp))
        told: dict[str, Any] = {"pipeline": pipeline or default, "data": str(data)}
        if demonstrations is not None:
            shown = read_docs(demonstrations, nlp.vocab)
            component = as_published(component, read_docs(data, nlp.vocab), shown, seed=seed)
            told[PUBLISHED] = {"demonstrations": str(demonstrations), "seed": seed}

        recorder = Recorder(out, quiet)
        info, stream = run(
            nlp,
            docs,
            protocol.value,
            dataset=dataset or data.stem,
            split=split,
            use_types=types,
            train=known,
            entity_types=read_entity_types(entity_type or ()),
            settings=told,
            component=component,
            progress=recorder.batch_done,
        )
        read = {"data": data, "train": train, "demonstrations": demonstrations}
        depends_on = identity(info, nlp, component, read, limit=limit)
        recorder.write(info, stream, depends_on, len(docs))
        _warn_of_unknown(info.counts)
        if protocol is ProtocolName.PREDICTED_ENTITIES and not info.counts["n_asked"]:
            stderr().print(
                "No pair was asked about: the entity types of the pipeline and those of the labels do not meet. Name "
                "them with --entity-type PREDICTED=GOLD, or leave types aside with --no-types."
            )
        if not quiet:
            show_runs([(str(out), summarise(*read_records(out)))])
            stderr().print(f"{info.counts['n_asked']} pairs in {info.counts['seconds']:.1f} s; records in {out}.")


def _check_published(data: Path, demonstrations: Path | None, protocol: ProtocolName, **fixed: Any) -> None:
    if demonstrations is None:
        raise typer.BadParameter("--published needs --demonstrations FILE.spacy: training or development documents.")
    if demonstrations.resolve() == data.resolve():
        raise typer.BadParameter("--demonstrations is the --data. Expected other documents: answers would be shown.")
    if protocol is not ProtocolName.GIVEN:
        raise typer.BadParameter(f"--published asks about given pairs, and --protocol is {protocol.value}.")
    if chosen := [name for name, value in fixed.items() if value is not None]:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in chosen)
        raise typer.BadParameter(f"--published settles what {options} would set. Leave one of the two out.")


def _warn_of_unknown(counts: dict[str, Any]) -> None:
    unknown = counts.get("gold_labels_outside_schema")
    if unknown:
        shown = ", ".join(f"{label} ({n})" for label, n in list(unknown.items())[:5])
        stderr().print(
            f"{sum(unknown.values())} gold relations have labels that the schema lacks and can only be missed: {shown}"
            f"{', …' if len(unknown) > 5 else ''}. Give the data set's labels with --labels."
        )
