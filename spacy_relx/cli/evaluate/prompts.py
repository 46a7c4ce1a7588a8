"""`evaluate prompts`: the published wordings on the same pairs."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated, Any

import typer

from spacy_relx.cli._common import Config, Debug, Labels, ModelPreset, Quiet, errors_as_messages
from spacy_relx.cli._pipeline import component_name, load_pipeline
from spacy_relx.cli._progress import progress
from spacy_relx.cli._tables import figure, make_table, show, with_interval
from spacy_relx.cli.evaluate._inputs import read_docs, settings_for
from spacy_relx.cli.evaluate._options import DecodingName, Limit, NoRelation, ProtocolName


def compare_prompts(
    data: Annotated[Path, typer.Option("--data", metavar="FILE.spacy", help="Annotated documents.")],
    labels: Labels = None,
    model_preset: ModelPreset = None,
    config: Config = None,
    no_relation: NoRelation = None,
    split: Annotated[str, typer.Option(help="dev, test, …; thresholds are never chosen on test.")] = "dev",
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

    Without --train or --examples there are no demonstrations. The best variant comes first; where intervals overlap, it
    need not be the best one.
    """
    with errors_as_messages(debug):
        from spacy_relx.evaluation.bootstrap import intervals
        from spacy_relx.evaluation.metrics import score, tally_documents
        from spacy_relx.evaluation.prompt_variants import (
            CUES,
            DECODINGS,
            N_EXAMPLES,
            choose_examples,
            compare_variants,
            variants,
        )
        from spacy_relx.evaluation.records import write_records
        from spacy_relx.prompt_block import SYSTEM_PRESETS, make_gentune_prompt
        from spacy_relx.shim import engine_shim

        if protocol is ProtocolName.PREDICTED_ENTITIES:
            raise typer.BadParameter("--protocol is predicted_entities. Expected given or gold_entities.")
        for name in system or ():
            if name not in SYSTEM_PRESETS:
                raise typer.BadParameter(f"--system is {name!r}. Expected one of {', '.join(SYSTEM_PRESETS)}.")
        nlp = load_pipeline("blank:en", settings_for(labels, model_preset, config, no_relation, protocol, None))
        component = nlp.get_pipe(component_name(nlp))
        device = engine_shim(component.model).engine.device  # loads the model, so that no variant's seconds have that
        docs = list(read_docs(data, nlp.vocab, limit))
        shots: list[Any] = []
        if examples is not None:
            shots = list(make_gentune_prompt(examples=str(examples)).examples)
        elif train is not None:
            negative = component.settings.no_relation
            shots = choose_examples(read_docs(train, nlp.vocab), labels=component.labels, negative=negative)
        asked = variants(
            systems=system or SYSTEM_PRESETS,
            cues=cue or CUES,
            n_examples=(0, N_EXAMPLES) if len(shots) >= N_EXAMPLES else (0,),
            decodings=tuple(d.value for d in decoding) if decoding else DECODINGS,
        )
        rows = []
        with progress("Asking", "variants", lambda: len(asked), quiet) as tell:
            stream = compare_variants(
                component,
                docs,
                asked,
                protocol=protocol.value,  # type: ignore[arg-type]
                examples=shots,
                dataset=data.stem,
                split=split,
            )
            for number, (variant, info, records) in enumerate(stream, 1):
                scores = score(info, records)
                sure = intervals(tally_documents(info, records))["micro_f"].to_dict()
                rows.append((variant, scores, sure, info.counts["seconds"]))
                tell(number)
                if out is not None:
                    slug = f"{variant.system}-{variant.cue.strip(':').lower()}-{variant.n_examples}-{variant.decoding}"
                    write_records(out / f"{slug}.jsonl", info, records)
        rows.sort(key=lambda row: (row[1].micro.f, row[1].tally.macro_f or 0.0), reverse=True)
        show(
            make_table(
                f"{data.stem}, {protocol.value}, {len(docs)} documents, {rows[0][1].n_asked} pairs, {device}",
                ("system", "cue", "decoding", "examples", "F [95 %]", "P", "R", "macro F", "outside", "seconds"),
                [
                    (
                        variant.system,
                        variant.cue,
                        variant.decoding,
                        str(variant.n_examples),
                        with_interval(scores.micro.f, sure),
                        figure(scores.micro.p),
                        figure(scores.micro.r),
                        figure(scores.tally.macro_f),
                        str(scores.tally.n_outside),
                        f"{seconds:.1f}",
                    )
                    for variant, scores, sure, seconds in rows
                ],
                n_text=3,
            )
        )
