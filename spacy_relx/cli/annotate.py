"""The command `annotate`: a corpus in, the same corpus with relations out."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spacy_relx.cli._common import (
    FAILED,
    INTERRUPTED,
    Config,
    Debug,
    Labels,
    ModelPreset,
    Pipeline,
    Quiet,
    Threshold,
    counted,
    errors_as_messages,
    fail,
    stderr,
)
from spacy_relx.cli._pipeline import component_name, component_settings, entity_pipeline, load_pipeline
from spacy_relx.cli._progress import progress
from spacy_relx.cli._ray import Engine, Form, annotate_on_cluster, check_options

if TYPE_CHECKING:
    from spacy_relx.corpus import Source, Summary


class OnError(StrEnum):
    """What a document that fails means for the run."""

    LOG = "log"
    SKIP = "skip"
    RAISE = "raise"


def annotate(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="A .txt file, a .jsonl file with a key 'text', a .spacy file (DocBin; annotated entities are kept), a "
            "folder of such files, or - for JSON Lines on standard input.",
        ),
    ],
    output: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="A .jsonl or .spacy file, or - for JSON Lines on standard output.")
    ],
    pipeline: Pipeline = None,
    labels: Labels = None,
    threshold: Threshold = None,
    model_preset: ModelPreset = None,
    config: Config = None,
    text_key: Annotated[str, typer.Option(help="The key of the text in a JSON line.")] = "text",
    per_line: Annotated[bool, typer.Option("--per-line", help="Each line of a .txt file is a document.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Documents the pipeline takes at a time.")] = 64,
    n_process: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
    shard_size: Annotated[
        int, typer.Option(min=1, help="Documents a run to a .spacy file may lose when it is killed.")
    ] = 500,
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Go on with an output that was cut off.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew where there is an output.")] = False,
    on_error: Annotated[
        OnError,
        typer.Option(
            help="A document that fails: log lists it in OUTPUT.errors.jsonl, writes it without annotations, goes on, "
            "and makes the exit code 1 at the end; skip does the same with exit code 0; raise stops in front of it."
        ),
    ] = OnError.LOG,
    engine: Annotated[
        Engine,
        typer.Option(
            help="ray: on a Ray cluster (RAY_ADDRESS, else this machine), from .parquet, .jsonl and .spacy files to "
            "the folder OUTPUT; needs the extra `ray`."
        ),
    ] = Engine.LOCAL,
    actors: Annotated[int | None, typer.Option(min=1, help="Ray: pipelines; left out, all that there is room for.")] = (
        None
    ),
    cpus_per_actor: Annotated[float, typer.Option(min=0.1, help="Ray: processors of a pipeline.")] = 1,
    gpus_per_actor: Annotated[float, typer.Option(min=0.0, help="Ray: GPUs of a pipeline.")] = 0,
    block_size: Annotated[int, typer.Option(min=1, help="Ray: documents of an output file.")] = 1000,
    form: Annotated[Form, typer.Option(help="Ray: the form of the output files.")] = Form.JSONL,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find the relations in a corpus.

    Every document of INPUT is written, in order, to OUTPUT. A pipeline without the component llama_relation_extractor
    gets it, with --labels, --threshold, --model-preset and --config. A run that was stopped or killed goes on where it
    was when the same command is given again; OUTPUT.progress.json says what the output belongs to. With --engine ray,
    OUTPUT is a folder with a file for every block of documents.
    """
    with errors_as_messages(debug):
        # The pipeline's config decides; these say in its place which option it was.
        options = {"labels": labels, "threshold": threshold, "model": model_preset, **_file_hashes(labels)}
        asked = (labels, threshold, model_preset, config)
        if engine is Engine.RAY:
            check_options(source, output, per_line=per_line, n_process=n_process, raises=on_error is OnError.RAISE)
            summary = annotate_on_cluster(
                pipeline or entity_pipeline(),
                *asked,
                source,
                output,
                quiet=quiet,
                n_actors=actors,
                cpus_per_actor=cpus_per_actor,
                gpus_per_actor=gpus_per_actor,
                block_size=block_size,
                form=form.value,
                text_key=text_key,
                batch_size=batch_size,
                resume=resume,
                overwrite=overwrite,
                options=options,
            )
        else:
            from spacy_relx.corpus import Source

            given = Source(source, text_key=text_key, per_line=per_line)
            if source != "-":
                given.files()  # an input that is not there is told before a pipeline is loaded
            summary = _annotate_here(
                load_pipeline(pipeline or entity_pipeline(), component_settings(*asked)),
                given,
                output,
                quiet=quiet,
                batch_size=batch_size,
                n_process=n_process,
                resume=resume,
                overwrite=overwrite,
                on_error="raise" if on_error is OnError.RAISE else "log",
                shard_size=shard_size,
                options=options,
            )
        if not quiet:
            resumed = f", {summary.n_resumed} of them before" if summary.n_resumed else ""
            stderr().print(f"{counted(summary.n_docs, 'document')} in {output}{resumed}; {summary.n_failed} failed.")
        if summary.n_failed and on_error is OnError.LOG:
            where = f"{summary.errors} lists them; " if summary.errors else ""
            message = f"{counted(summary.n_failed, 'document')} failed: {where}--on-error skip makes this exit with 0."
            fail(message, FAILED, "DocumentsFailed")


def _annotate_here(nlp: Any, source: Source, output: str, *, quiet: bool, **options: Any) -> Summary:
    """Annotate in this process, and show how far it is."""
    from spacy_relx.corpus import annotate_corpus
    from spacy_relx.relation import DEFAULT_ATTR

    name = component_name(nlp)
    attr = nlp.get_pipe_config(name).get("attr", DEFAULT_ATTR) if name else DEFAULT_ATTR
    n_done = 0
    with progress("Annotating", "docs", source.count, quiet) as show:

        def tell(done: int, failed: int) -> None:
            nonlocal n_done
            n_done = done
            show(done, failed)

        try:
            return annotate_corpus(nlp, source, output, attr=attr, progress=tell, **options)
        except KeyboardInterrupt:
            go_on = "" if output == "-" else " Give the same command again to go on from there."
            fail(f"Stopped after {counted(n_done, 'document')}.{go_on}", INTERRUPTED, "Interrupted")


def _file_hashes(labels: str | None) -> dict[str, str]:
    """Return what tells a schema file from a changed one; the pipeline's config has only its path."""
    import hashlib

    if labels is None or not Path(labels).is_file():
        return {}
    return {"labels_sha256": hashlib.sha256(Path(labels).read_bytes()).hexdigest()}
