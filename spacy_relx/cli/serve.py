"""The command `serve`: a pipeline behind HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from spacy_relx.cli._common import (
    Config,
    Debug,
    Labels,
    ModelPreset,
    Pipeline,
    Quiet,
    Threshold,
    errors_as_messages,
    stderr,
)
from spacy_relx.cli._pipeline import component_settings, entity_pipeline, load_pipeline


def serve(
    pipeline: Pipeline = None,
    labels: Labels = None,
    threshold: Threshold = None,
    model_preset: ModelPreset = None,
    config: Config = None,
    host: Annotated[str, typer.Option(help="The address to listen at. There is no authentication.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8000,
    max_body: Annotated[int, typer.Option(min=1, metavar="BYTES", help="Most bytes of a request.")] = 4 * 2**20,
    max_documents: Annotated[int, typer.Option(min=1, help="Most documents of a request.")] = 64,
    max_chars: Annotated[int, typer.Option(min=1, help="Most characters of a document.")] = 50_000,
    max_waiting: Annotated[
        int, typer.Option(min=1, help="Most documents that wait for their answer; more are refused with 503.")
    ] = 512,
    batch_size: Annotated[int, typer.Option(min=1, help="Documents that are answered together.")] = 64,
    max_wait: Annotated[
        float, typer.Option(min=0.0, metavar="MS", help="Milliseconds that a batch waits for more requests.")
    ] = 5.0,
    pool: Annotated[
        bool,
        typer.Option(
            "--pool/--no-pool",
            help="Whether documents share forward passes on a processor, too: faster, and scores may differ in the "
            "digits that the number format rounds away.",
        ),
    ] = True,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Answer requests for relations over HTTP.

    POST /relations takes texts, with or without their entities; GET /health, /health/ready, /metrics (Prometheus) and
    /openapi.json tell about the service. SIGTERM or Ctrl-C stops it after the requests that it has accepted. Needs the
    extra `serve`.
    """
    with errors_as_messages(debug):
        from spacy_relx.evaluation.asked import find_component
        from spacy_relx.serving import create_app, run
        from spacy_relx.serving.limits import Limits

        limits = Limits(max_body, max_documents, max_chars, max_waiting, batch_size, max_wait)
        nlp = load_pipeline(pipeline or entity_pipeline(), component_settings(labels, threshold, model_preset, config))
        app = create_app(nlp, limits, pool=pool)
        if not quiet:
            stderr().print("Loading the model.")
        find_component(nlp).load()  # here, so that a model that cannot be had is told as with every command
        run(app, host=host, port=port, quiet=quiet)
