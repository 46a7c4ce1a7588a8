"""The command `evaluate`: asks a model about annotated documents, and scores, tunes and compares what it answered.

One file a command. `evaluate` alone asks; the commands under it read what it wrote, but for `prompts`
and `mixture`, which ask too.
"""

import typer

from spacy_relx.cli.evaluate.ask import evaluate
from spacy_relx.cli.evaluate.compare import compare_runs
from spacy_relx.cli.evaluate.mixture import evaluate_mixture
from spacy_relx.cli.evaluate.prompts import compare_prompts
from spacy_relx.cli.evaluate.score import score_runs
from spacy_relx.cli.evaluate.threshold import threshold_of_run

__all__ = ["app"]

app = typer.Typer(
    name="evaluate",
    help="Ask a model about annotated documents, and score, tune and compare what it answered.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.callback(invoke_without_command=True)(evaluate)
app.command("score")(score_runs)
app.command("threshold")(threshold_of_run)
app.command("compare")(compare_runs)
app.command("prompts")(compare_prompts)
app.command("mixture")(evaluate_mixture)
