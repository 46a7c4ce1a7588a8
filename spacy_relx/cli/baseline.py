"""The command `baseline`: a classifier on typed entity markers, trained on one corpus and asked about another."""

from __future__ import annotations

from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from spacy_relx.cli._common import Debug, Quiet, errors_as_messages, stderr, stdout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class BaselineProtocol(StrEnum):
    """Which pairs are learned from and asked about."""

    GIVEN = "given"
    GOLD_ENTITIES = "gold_entities"


def baseline(
    training: Annotated[Path, typer.Argument(metavar="TRAIN.spacy", help="Docs with gold relations to learn from.")],
    testing: Annotated[Path, typer.Argument(metavar="TEST.spacy", help="Docs with gold relations to be asked about.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="RUN.jsonl", help="Where the records are written.")],
    encoder: Annotated[
        str, typer.Option("--encoder", "-e", metavar="NAME|FOLDER", help="Any encoder of the Hugging Face Hub.")
    ] = "FacebookAI/roberta-base",
    revision: Annotated[str | None, typer.Option(help="The encoder's branch, tag or commit on the Hub.")] = None,
    protocol: Annotated[
        BaselineProtocol,
        typer.Option(help="given: the annotated pairs. gold_entities: all pairs of gold entities in a sentence."),
    ] = BaselineProtocol.GIVEN,
    dataset: Annotated[str | None, typer.Option(help="Name of the data set; TEST's folder if left out.")] = None,
    split: Annotated[str, typer.Option(help="Name of the part that is asked about.")] = "test",
    epochs: Annotated[int, typer.Option(min=1)] = 3,
    learning_rate: Annotated[float, typer.Option("--lr")] = 2e-5,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs a step.")] = 16,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longer texts are cut around the pair, and counted.")] = 256,
    seed: Annotated[int, typer.Option(help="Of new weights, order and dropout.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    local_files_only: Annotated[bool, typer.Option("--local-files-only", help="Never ask the network.")] = False,
    model: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keeps the weights after every epoch; an interrupted training goes on."),
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a classifier on TRAIN and ask it about TEST.

    An encoder reads each pair with markers of their types around both mentions; a classification head names the
    relation. The defaults are the published recipe. RUN.jsonl is scored and reported like any other run.
    """
    with errors_as_messages(debug):
        from spacy_relx._annotated import read_annotated
        from spacy_relx.baseline import Baseline, Recipe, run_baseline
        from spacy_relx.evaluation.metrics import score
        from spacy_relx.evaluation.records import write_records

        recipe = Recipe(epochs, learning_rate, batch_size, max_tokens, seed)
        asked = Baseline(
            encoder=encoder,
            recipe=recipe,
            protocol=protocol.value,
            revision=revision,
            local_files_only=local_files_only,
            device=device,
            folder=model,
        )
        name = dataset or testing.resolve().parent.name
        with _progress(quiet) as progress:
            info, records = run_baseline(
                read_annotated(training), read_annotated(testing), asked, dataset=name, split=split, progress=progress
            )
        write_records(out, info, records)
        if not quiet:
            micro = score(info, records).micro
            cut = f" {info.counts['n_cut']} texts were cut around the pair." if info.counts["n_cut"] else ""
            found = f"P {micro.p:.3f}, R {micro.r:.3f}, micro-F1 {micro.f:.3f}"
            stderr().print(f"{info.counts['n_asked']} pairs answered: {found}.{cut}")
        stdout().print(str(out))


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """Show steps and pairs done, if somebody can see it."""
    console = stderr()
    if quiet or not console.is_terminal:
        yield None
        return

    from rich.progress import Progress

    with Progress(console=console) as bar:
        tasks = {stage: bar.add_task(text, total=None) for stage, text in (("train", "Training"), ("test", "Asking"))}

        def show(stage: str, done: int, total: int) -> None:
            bar.update(tasks[stage], completed=done, total=total)

        yield show
