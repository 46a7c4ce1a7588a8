"""The command line: `python -m spacy relx …`, `python -m spacy_relx …` and `spacy-relx …`.

One file a command, or a folder for one that has commands under it. A command imports what it needs when it runs, so
that `--help` and the other commands stay quick. spaCy imports this module through its `spacy_cli` entry point; that
puts the commands under its own.
"""

import typer
from spacy.cli._util import app as _spacy_app

from spacy_relx.cli._common import EXIT_CODES, Group, JsonErrors
from spacy_relx.cli.annotate import annotate
from spacy_relx.cli.baseline import baseline
from spacy_relx.cli.benchmark import benchmark
from spacy_relx.cli.convert import convert
from spacy_relx.cli.evaluate import app as _evaluate_app
from spacy_relx.cli.export import export
from spacy_relx.cli.fetch import fetch
from spacy_relx.cli.info import info
from spacy_relx.cli.report import report
from spacy_relx.cli.rows import rows
from spacy_relx.cli.serve import serve
from spacy_relx.cli.view import view
from spacy_relx.engine.allocator import keep_freed_memory

__all__ = ["app", "main"]

app = typer.Typer(
    name="relx",
    help="Typed, scored relations between the entities of your documents, found by a small model on this machine.",
    epilog=EXIT_CODES,
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def _settle(json_errors: JsonErrors = False) -> None:
    """Settle what holds for the whole process, which is this command's own."""
    # json_errors is read by Group: an unknown command ends before this.
    keep_freed_memory()


app.command("fetch")(fetch)
app.command("annotate")(annotate)
app.command("serve")(serve)
app.command("view")(view)
app.command("export")(export)
app.command("convert")(convert)
app.command("info")(info)
app.command("report")(report)
app.command("baseline")(baseline)
app.command("benchmark")(benchmark)
app.command("rows")(rows)
app.add_typer(_evaluate_app, name="evaluate")

_spacy_app.add_typer(app, name="relx")


def main() -> None:
    """Run the command line."""
    app(prog_name="spacy-relx")
