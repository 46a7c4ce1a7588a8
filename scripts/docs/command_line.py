"""The command-line reference, written by typer itself."""

from __future__ import annotations

import re

from typer.cli import get_docs_for_click
from typer.main import get_command

from spacy_relx.cli import app

#: How the documentation calls the program; `spacy-relx` and `python -m spacy_relx` are the same.
PROGRAM = "python -m spacy relx"


def commands() -> str:
    """Every command with its arguments and options, one heading each."""
    command = get_command(app)
    context = command.make_context("relx", [], resilient_parsing=True)
    text = get_docs_for_click(obj=command, ctx=context, name=PROGRAM, indent=0)
    # The page has its own title, and what a heading says need not be said by a line of its own.
    text = text.split("\n", 1)[1]
    text = re.sub(rf"^(#+) `{PROGRAM} ([^`]+)`$", r"\1 `\2`", text, flags=re.MULTILINE)
    return re.sub(r"\*\*(Usage|Arguments|Options|Commands)\*\*:", r"**\1**", text)
