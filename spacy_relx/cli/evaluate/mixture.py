"""`evaluate mixture`: finished prompts with their right answers, such as the test splits of the published mixtures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spacy_relx.cli._common import Config, Debug, ModelPreset, Quiet, errors_as_messages, stderr, stdout
from spacy_relx.cli._pipeline import component_name, component_settings, load_pipeline
from spacy_relx.cli._tables import figure, make_table, show, with_interval
from spacy_relx.cli.convert import OnError
from spacy_relx.cli.evaluate._options import DecodingName
from spacy_relx.cli.evaluate._outputs import write_json
from spacy_relx.cli.evaluate._recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Sequence

# Skipped rows that are named one by one; the records' first line has all that could not be asked.
_SHOWN = 20


def evaluate_mixture(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE|FOLDER",
            exists=True,
            help="Columns relation, prompt, dataset, as .parquet, .jsonl, .json, .csv or .tsv.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="RUN.jsonl", help="Where to write records.")],
    split: Annotated[str | None, typer.Option(help="With a folder: the split to read, such as test_0.")] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Only rows of this data set; may be given more than once.")
    ] = None,
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", "-p", help="A pipeline that has the component, for its model.")
    ] = None,
    model_preset: ModelPreset = None,
    config: Config = None,
    decoding: Annotated[
        DecodingName, typer.Option(help="free, as published; constrained: one of the labels that the data set has.")
    ] = DecodingName.FREE,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a free answer.")] = 64,
    system: Annotated[
        str, typer.Option(help="A system text before each prompt: training, generic, evaluation, or a text.")
    ] = "",
    on_error: Annotated[
        OnError, typer.Option(help="A row that cannot be read or asked: skip reports it and goes on, raise stops.")
    ] = OnError.SKIP,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="Most prompts to ask; 0 for all.")] = 0,
    output: Annotated[Path | None, typer.Option("--json", metavar="FILE.json", help="Write all figures.")] = None,
    rounds: Annotated[int, typer.Option(min=0, help="Resamples of the confidence intervals; 0 for none.")] = 1000,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Ask a model finished prompts, and score its answers for each data set.

    Each prompt is one user turn as it is. Answers are compared as in the published evaluation; intervals resample rows.
    A run that was stopped or killed leaves RUN.jsonl.part, and the same command goes on from there.
    """
    with errors_as_messages(debug):
        from spacy_relx.data.mixtures import prompt_files, read_prompts
        from spacy_relx.evaluation.finished import (
            PromptRun,
            ask_prompts,
            labels_of,
            read_prompt_records,
            summarise_prompts,
        )
        from spacy_relx.evaluation.partial import identity
        from spacy_relx.prompt_block import make_gentune_prompt
        from spacy_relx.shim import engine_shim

        wording = make_gentune_prompt(system=system)
        wording.fail()
        if "{labels}" in wording.system:
            raise typer.BadParameter("--system lists the labels. Expected another text: a finished prompt says it all.")
        files = prompt_files(source, split)
        wanted = tuple(dataset) if dataset else None
        # All of the split, whatever the limit: which labels there are does not depend on how many prompts are asked.
        rows = read_prompts(source, split, datasets=wanted, on_error=on_error.value)
        answers = Counter((row.dataset, row.label.strip()) for row in rows)
        if not answers:
            raise typer.BadParameter(f"{str(source)!r} has no rows{' of these data sets' if wanted else ''}.")
        nlp = load_pipeline(pipeline or "blank:en", component_settings(None, None, model_preset, config))
        component = nlp.get_pipe(component_name(nlp))
        run = PromptRun(
            str(source),
            split,
            labels_of(answers),
            {
                "model": engine_shim(component.model).spec.to_dict(),
                "system": wording.system,
                "template_kwargs": dict(component.settings.prompt.template_kwargs or {}),
                "decoding": decoding.value,
                "scoring": component.settings.scoring,
                "max_new_tokens": max_new_tokens,
            },
        )
        problems: list[Any] = []
        recorder = Recorder(out, quiet, "prompts")
        records = ask_prompts(
            component,
            read_prompts(source, split, datasets=wanted, limit=limit, on_error=on_error.value, problems=problems),
            run,
            system=wording.system,
            decoding=decoding.value,
            max_new_tokens=max_new_tokens,
            on_error=on_error.value,
            progress=recorder.batch_done,
        )
        tables: dict[str, Path | None] = {f"table {number}": path for number, path in enumerate(files, 1)}
        depends_on = identity(run, nlp, component, tables, limit=limit)
        n_prompts = answers.total()
        recorder.write(run, records, depends_on, min(limit, n_prompts) if limit else n_prompts)
        _tell_of_skipped([*map(str, problems), *run.counts["unanswered"]])
        summary = summarise_prompts(*read_prompt_records(out), n_rounds=rounds)
        if output is not None:
            write_json(output, {"run": str(out), "source": str(source), "split": split, **summary})
        if not quiet:
            _show(f"{source}{f' {split}' if split else ''}, {decoding.value} answers", summary)
            stderr().print(f"{run.counts['n_asked']} prompts in {run.counts['seconds']:.1f} s; records in {out}.")


def _tell_of_skipped(skipped: Sequence[str]) -> None:
    for line in skipped[:_SHOWN]:
        stderr().print(f"Skipped: {line}")
    if len(skipped) > _SHOWN:
        stderr().print(f"Skipped: {len(skipped) - _SHOWN} more; --on-error raise stops at the first.")


def _show(title: str, summary: dict[str, Any]) -> None:
    rows = [
        (
            name,
            with_interval(found["micro"]["f"], found["intervals"].get("micro_f")),
            figure(found["micro"]["p"]),
            figure(found["micro"]["r"]),
            figure(found["macro_f"]),
            figure(found["false_positive_rate"]),
            str(found["n_outside"]),
            str(found["n_rows"]),
        )
        for name, found in summary["datasets"].items()
    ]
    show(make_table(title, ("data set", "micro F [95 %]", "P", "R", "macro F", "FP rate", "outside", "prompts"), rows))
    stdout().print(f"mean micro F of the data sets: {figure(summary['mean_micro_f'])}")
