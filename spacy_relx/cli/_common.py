"""What the commands share: options, where messages go, and what an error looks like."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from spacy_relx.errors import RelxError

if TYPE_CHECKING:
    from collections.abc import Iterator

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary; errors are still shown.")]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels", "-l", metavar="NAME|FILE", help="The relations: a packaged schema's name, or a JSON file."
    ),
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

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""


def stderr() -> Console:
    """Return a console for messages; standard output is left to results."""
    return Console(stderr=True, soft_wrap=True, markup=False, highlight=False)


def stdout() -> Console:
    """Return a console for results."""
    return Console(soft_wrap=True, markup=False, highlight=False)


@contextmanager
def errors_as_messages(debug: bool) -> Iterator[None]:
    """Turn what goes wrong into one message on standard error and an exit code: 1, or 130 after Ctrl-C."""
    try:
        yield
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except KeyboardInterrupt:
        stderr().print("Stopped.")
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # The reader of our output (`| head`) has seen enough. Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except Exception as error:
        if debug:
            raise
        if isinstance(error, (RelxError, OSError)):
            stderr().print(f"Error: {error}")
        else:
            name = type(error).__name__
            stderr().print(f"Error: {name}: {error}\nThis was not expected. Run again with --debug to see where it is.")
        raise typer.Exit(1) from None
