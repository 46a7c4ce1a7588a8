"""What the commands share: options, where messages go, what an error looks like, and which exit code it has."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

from spacy_relx.cli import _completion
from spacy_relx.errors import RelxError

if TYPE_CHECKING:
    from collections.abc import Iterator

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary; errors are still shown.")]
Pipeline = Annotated[
    str | None,
    typer.Option(
        "--pipeline",
        "-p",
        help="A spaCy pipeline: its name, its folder, or blank:LANG for none. Left out: en_core_web_sm.",
    ),
]
Threshold = Annotated[float | None, typer.Option(min=0.0, max=1.0, help="The lowest score a relation may have.")]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        "-l",
        metavar="NAME|FILE",
        help="The relations: a packaged schema's name, or a JSON file.",
        autocompletion=_completion.schemas,
    ),
]
ModelPreset = Annotated[
    str | None,
    typer.Option(metavar="SmolLM2|Llama32GenTune", help="The model that is asked.", autocompletion=_completion.presets),
]
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

JsonErrors = Annotated[
    bool,
    typer.Option(
        "--json-errors",
        envvar="SPACY_RELX_JSON_ERRORS",
        help="Write an error as a JSON object {error, message, exit_code}: the last line of standard error.",
    ),
]

FAILED = 1
"""Exit code after an error, or if documents failed."""
MISUSED = 2
"""Exit code if the command line cannot be understood."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""
EXIT_CODES = "Exit codes: 0 done, 1 an error or documents that failed, 2 a wrong command line, 130 stopped with Ctrl-C."

_as_json: ContextVar[bool] = ContextVar("as_json", default=False)
_UsageError: Any = typer.BadParameter.__base__


def stderr() -> Console:
    """Return a console for messages; standard output is left to results."""
    return Console(stderr=True, soft_wrap=True, markup=False, highlight=False)


def stdout() -> Console:
    """Return a console for results."""
    return Console(soft_wrap=True, markup=False, highlight=False)


class Group(TyperGroup):
    """Commands with an option --json-errors, which is also for errors of usage."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        _as_json.set(bool(ctx.params.get("json_errors")))
        try:
            return super().invoke(ctx)
        except _UsageError as error:
            if not _as_json.get():
                raise
            fail(error.format_message(), MISUSED, "UsageError")


def fail(message: str, code: int, error: str) -> NoReturn:
    """End the command with a message on standard error.

    Args:
        message: What went wrong, and what to do.
        code: The exit code.
        error: What kind of error it is, for programs.
    """
    if _as_json.get():
        message = json.dumps({"error": error, "message": message, "exit_code": code}, ensure_ascii=False)
    stderr().print(message)
    raise typer.Exit(code) from None


def counted(n: int, singular: str) -> str:
    """Return a number with its word, in the plural where it has to be."""
    return f"{n} {singular}" if n == 1 else f"{n} {singular}s"


@contextmanager
def errors_as_messages(debug: bool) -> Iterator[None]:
    """Turn what goes wrong into one message on standard error and an exit code: 1, or 130 after Ctrl-C."""
    try:
        yield
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except KeyboardInterrupt:
        fail("Stopped.", INTERRUPTED, "Interrupted")
    except BrokenPipeError:
        # The reader of our output (`| head`) has seen enough. Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except Exception as error:
        if debug:
            raise
        name, message = type(error).__name__, str(error)
        if not isinstance(error, (RelxError, OSError)):
            message = f"{name}: {message}\nThis was not expected. Run again with --debug to see where it is."
        fail(message if _as_json.get() else f"Error: {message}", FAILED, name)
