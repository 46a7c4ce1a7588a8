"""What `annotate --engine ray` does: options of a command as arguments of `annotate_on_ray`."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from spacy_relx.cli._pipeline import component_settings, load_pipeline
from spacy_relx.cli._progress import progress

if TYPE_CHECKING:
    from spacy_relx.corpus import Summary


class Engine(StrEnum):
    """Where documents are annotated."""

    LOCAL = "local"
    RAY = "ray"


class Form(StrEnum):
    """The form of a Ray run's output."""

    JSONL = "jsonl"
    PARQUET = "parquet"


def check_options(source: str, output: str, *, per_line: bool, n_process: int, raises: bool) -> None:
    """Refuse what a Ray run has no use for.

    Raises:
        BadParameter: Naming the option.
    """
    if "-" in (source, output):
        raise typer.BadParameter("--engine ray reads files and writes a folder, not standard input or output.")
    for name, given in (("--per-line", per_line), ("--n-process", n_process > 1), ("--on-error raise", raises)):
        if given:
            raise typer.BadParameter(f"{name} does not go with --engine ray. Leave it out; see --actors.")


def annotate_on_cluster(
    pipeline: str,
    labels: str | None,
    threshold: float | None,
    model_preset: str | None,
    config: Path | None,
    source: str,
    output: str,
    *,
    quiet: bool,
    **options: Any,
) -> Summary:
    """Annotate on a Ray cluster, with the pipeline that the options ask for in every actor."""
    from spacy_relx.distributed.ray_data import annotate_on_ray

    # Absolute, as an actor may work in another folder.
    settings = component_settings(labels and _absolute(labels), threshold, model_preset, config)
    make = partial(load_pipeline, _absolute(pipeline), settings)
    with progress("Annotating", "docs", lambda: None, quiet) as show:
        return annotate_on_ray(make, source, output, progress=show, **options)


def _absolute(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).exists() else name
