"""The command `rows`: annotated Docs, or finished prompts, in; rows for training, which needs no spaCy, out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spacy_relx.cli._common import Config, Debug, Labels, Quiet, errors_as_messages, stderr, stdout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from spacy_relx.data.base import Problem
    from spacy_relx.training.mixture import Mixture
    from spacy_relx.training.rows import RowGroup
    from spacy_relx.training.sentences import Skipped

# Paraphrases can make hundreds of different answers.
_SHOWN = 50


def rows(
    data: Annotated[
        Path, typer.Argument(metavar="TRAIN.spacy", help="Docs with gold relations; with --prompts, a table or folder.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT.jsonl", help="What to write: a group of rows a line.")],
    labels: Labels = None,
    config: Config = None,
    no_relation: Annotated[
        str | None,
        typer.Option(help="The negative label, or null; the label set's own if left out, else the component's."),
    ] = None,
    spans_key: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Take mentions from this span group (`gold` in converted data sets)."),
    ] = None,
    directed: Annotated[
        bool | None,
        typer.Option("--directed/--undirected", help="Both orders of a pair, or only text order. Left out: both."),
    ] = None,
    mixture: Annotated[
        list[str] | None,
        typer.Option(
            "--mixture",
            "-m",
            metavar="FILE.json|KEY=VALUE",
            help="How rows vary, such as negatives=3 or examples=[0,2]; can be given often, the last wins.",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="How often to go through the Docs, with new draws.")] = 1,
    seed: Annotated[int | None, typer.Option(help="Of all draws; the mixture's if left out.")] = None,
    prompts: Annotated[
        bool, typer.Option("--prompts", help="The input holds finished prompts: columns relation, prompt, dataset.")
    ] = False,
    split: Annotated[
        str | None, typer.Option(help="With --prompts and a folder: the split to read, such as train_0.")
    ] = None,
    system: Annotated[
        str, typer.Option(help="With --prompts: a system text before each (training, generic, evaluation, or a text).")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="Most Docs or prompts; 0 for all.")] = 0,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write training rows as the component meets them, with the prompts of --config and the labels of --labels.

    Prints what was made and what could not be used, with reasons. A finished prompt becomes one user turn as it is.
    """
    with errors_as_messages(debug):
        if output.suffix != ".jsonl":
            raise typer.BadParameter(f"The output {str(output)!r} is of no known kind. Expected a .jsonl file.")
        if output.resolve() == data.resolve():
            raise typer.BadParameter(f"The output {str(output)!r} is the input. Choose another place for it.")
        made = _Made()
        groups: Iterable[RowGroup]
        if prompts:
            groups = _from_prompts(data, split, system, limit, made)
        else:
            settings = _settings(labels, config, no_relation, {"spans_key": spans_key, "directed": directed})
            groups = _from_docs(data, settings, _mixture(mixture or [], seed), epochs, limit, made)
        _write(output, groups, made)
        if not quiet:
            made.show()
        stdout().print(str(output))


class _Made:
    """What a run made, for its summary."""

    def __init__(self) -> None:
        self.n_contexts = 0
        self.n_groups = 0
        self.answers: Counter[str] = Counter()
        self.n_negatives: int | None = None
        self.n_unsettled = 0
        self.skipped: Skipped | None = None
        self.problems: Counter[str] = Counter()

    def count(self, groups: Iterable[RowGroup]) -> Iterator[RowGroup]:
        for group in groups:
            self.n_groups += 1
            self.answers.update(answer for _, answer in group.rows)
            yield group

    def show(self) -> None:
        console = stderr()
        n_rows = self.answers.total()
        parts = [f"{self.n_contexts} contexts"] if self.n_contexts else []
        parts += [f"{self.n_groups} groups", f"{n_rows} rows"]
        if self.n_negatives is not None:
            parts += [f"{n_rows - self.n_negatives} positive", f"{self.n_negatives} negative"]
        console.print(", ".join(parts))
        shown = [f"{answer} {n}" for answer, n in self.answers.most_common(_SHOWN)]
        more = len(self.answers) - len(shown)
        console.print(f"answers: {', '.join(shown)}{f', and {more} more' if more else ''}")
        if self.n_unsettled:
            console.print(
                f"{self.n_unsettled} pairs without a relation left out: "
                "in the same text, a pair that reads the same has one"
            )
        if self.skipped:
            console.print(str(self.skipped))
        for reason, n in self.problems.most_common():
            console.print(f"{n} skipped: {reason}")


def _write(output: Path, groups: Iterable[RowGroup], made: _Made) -> None:
    from spacy_relx.errors import DataError
    from spacy_relx.training.rows import write_rows

    scratch = output.with_name(f"{output.name}.part")
    try:
        if not write_rows(scratch, made.count(groups)):
            raise DataError("There are no rows to write. Expected at least one pair with an answer; see the mixture.")
        scratch.replace(output)
    finally:
        scratch.unlink(missing_ok=True)


def _from_prompts(data: Path, split: str | None, system: str, limit: int, made: _Made) -> Iterator[RowGroup]:
    from spacy_relx.data.mixtures import group_of, read_prompts
    from spacy_relx.prompt_block import make_gentune_prompt

    wording = make_gentune_prompt(system=system)
    wording.fail()
    problems: list[Problem] = []
    for row in read_prompts(data, split, limit=limit, problems=problems):
        yield group_of(row, wording.system)
    made.problems.update(problem.reason for problem in problems)


def _from_docs(
    data: Path, settings: dict[str, Any], mixture: Mixture, epochs: int, limit: int, made: _Made
) -> Iterator[RowGroup]:
    from spacy_relx.cli._pipeline import component_name, load_pipeline
    from spacy_relx.training.contexts import settled
    from spacy_relx.training.demonstrations import Demonstrations
    from spacy_relx.training.groups import epoch_groups
    from spacy_relx.training.sentences import Skipped, read_contexts

    nlp = load_pipeline("blank:en", settings)
    component = nlp.get_pipe(component_name(nlp))
    made.skipped = Skipped()
    found = list(read_contexts(component, _docs(data, nlp, limit), made.skipped))
    contexts = settled(found)
    made.n_contexts, made.n_negatives = len(contexts), 0
    made.n_unsettled = sum(len(context.pairs) for context in found) - sum(len(context.pairs) for context in contexts)
    pool = Demonstrations(contexts) if mixture.examples is not None else None
    known, negative = component.settings, component.settings.negative_prompt
    for epoch in range(epochs):
        for group in epoch_groups(contexts, component.schema, known.prompt, negative, mixture, epoch, pool):
            if negative is not None:  # the last of the labels, whatever it is called in this group
                made.n_negatives += sum(answer == group.labels[-1] for _, answer in group.rows)
            yield group


def _docs(path: Path, nlp: Any, limit: int) -> Iterator[Any]:
    """The Docs with sentence boundaries, which the pairs depend on, set by rules where they lack them."""
    from itertools import islice

    from spacy_relx import relation
    from spacy_relx._inputs import read_docbin
    from spacy_relx.errors import DataError

    if not path.is_file():
        raise DataError(f"{str(path)!r} does not exist. Expected a .spacy file with gold relations.")
    relation.register()
    for doc in islice(read_docbin(path, nlp.vocab), limit or None):
        yield doc if doc.has_annotation("SENT_START") else nlp.get_pipe("sentencizer")(doc)


def _settings(
    labels: str | None, config: Path | None, no_relation: str | None, candidates: dict[str, Any]
) -> dict[str, Any]:
    """The component's settings; where nothing says otherwise, the negative is the label set's own."""
    from spacy_relx.cli._pipeline import component_settings
    from spacy_relx.schema import Schema, make_schema

    settings = component_settings(labels, None, None, config)
    settings.pop("model", None)  # rows need none
    if no_relation is not None:
        settings["no_relation"] = None if no_relation == "null" else no_relation
    elif "no_relation" not in settings:
        chosen = settings.get("labels")
        if isinstance(chosen, dict) and "@misc" in chosen:
            schema = make_schema(**{key: value for key, value in chosen.items() if key != "@misc"})
            if isinstance(schema, Schema) and schema.no_relation is not None:
                settings["no_relation"] = schema.no_relation
    if wanted := {name: value for name, value in candidates.items() if value is not None}:
        known = settings.get("candidates") or {"@misc": "spacy-relx.EntityPairs.v1"}
        settings["candidates"] = {**known, **wanted}
    return settings


def _mixture(values: list[str], seed: int | None) -> Mixture:
    """Read files and single settings, the later over the earlier."""
    from spacy_relx._json import parse_json
    from spacy_relx.errors import ConfigError
    from spacy_relx.training.mixture import mixture_from

    data: dict[str, Any] = {}
    for value in values:
        key, sign, text = value.partition("=")
        if sign and not Path(value).is_file():
            try:
                data[key.strip()] = parse_json(text)
            except ValueError:
                data[key.strip()] = text
            continue
        try:
            found = parse_json(Path(value).read_text(encoding="utf-8-sig"))
        except ValueError as error:
            raise ConfigError(f"--mixture {value!r} is not JSON: {error}. Expected settings by name.") from error
        if not isinstance(found, dict):
            raise ConfigError(f"--mixture {value!r} holds {type(found).__name__}. Expected settings by name.")
        data |= found
    if seed is not None:
        data["seed"] = seed
    return mixture_from(data, "--mixture")
