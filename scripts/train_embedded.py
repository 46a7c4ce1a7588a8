"""How the adapter of the embedded model was trained: rows of four openly licensed data sets, and four recipes.

    python scripts/train_embedded.py rows explained training/embedded      # rows for training and development
    python scripts/train_embedded.py train training/embedded --steps 1000  # goes on after a kill
    python scripts/train_embedded.py dev training/embedded                 # how good it is on the development rows
    python scripts/train_embedded.py ship training/embedded --threshold 0.5

The packaged adapter comes from `rows --full` and a GPU: `training.json` beside it has the commands.

What the adapter is never shown: test sets; the 22 relations of Wiki80 that are held out to be asked about unseen, and
every sentence that they occur in; CoNLL04, GIDS, NYT, KBP37 and WebNLG, which have no licence or one that forbids it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spacy_relx.prompt_block import make_gentune_prompt
from spacy_relx.prompts import clean
from spacy_relx.training.contexts import settled
from spacy_relx.training.demonstrations import Demonstrations
from spacy_relx.training.groups import epoch_groups
from spacy_relx.training.mixture import Mixture, mixture_from
from spacy_relx.training.rows import read_rows, write_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from spacy_relx.training.contexts import AnnotatedContext, AnnotatedPair
    from spacy_relx.training.rows import RowGroup

#: Relations of Wiki80 that occur in neither Re-DocRED nor FewRel's validation set, in alphabetical order.
HELD_OUT = (
    "after a work by",
    "architect",
    "distributor",
    "field of work",
    "heritage designation",
    "instrument",
    "language of work or name",
    "licensed to broadcast to",
    "mountain range",
    "movement",
    "nominated for",
    "occupant",
    "occupation",
    "operating system",
    "participating team",
    "place served by transport hub",
    "said to be the same as",
    "sports season of league or competition",
    "successful candidate",
    "taxon rank",
    "tributary",
    "winner",
)

#: Of the draw of the 16 that the test asks about; the other six are for development.
UNSEEN_SEED = 20261122

TYPED_USER = "Sentence: {sentence}\nEntity 1: {head} ({head_type})\nEntity 2: {tail} ({tail_type})\n{cue}"
TWICE_USER = "Sentence: {sentence}\nAgain: {sentence}\nEntity 1: {head}\nEntity 2: {tail}\n{cue}"


def unseen_labels() -> tuple[list[str], list[str]]:
    """The 16 labels of the test, and the six of development."""
    test = set(Random(UNSEEN_SEED).sample(HELD_OUT, 16))
    return sorted(test), sorted(set(HELD_OUT) - test)


@dataclass(frozen=True)
class Source:
    """One data set in the mixture.

    Attributes:
        corpora: Its converted files, in `corpus/`.
        schema: The packaged schema with its labels.
        wordings: The packaged wordings of its labels.
        no_relation: The negative label's name.
        directed: Whether both orders of a pair are asked about.
        dev: Share of the documents, the last ones, that are for development.
        epochs: How often a document is in the rows.
        cap: Most documents of one label; 0: all.
        share: Share of the training contexts that are taken.
        typed: Whether its entities have types.
        general: Whether its relations go by the names of the packaged general schema, with what they mean.
        settings: Settings of the mixture that differ.
    """

    corpora: tuple[str, ...]
    schema: str
    wordings: str
    no_relation: str = "no_relation"
    directed: bool = True
    dev: float = 0.06
    epochs: int = 1
    cap: int = 0
    share: float = 1.0
    typed: bool = False
    general: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


#: What a recipe is tried on, and the long run trained on.
SOURCES = {
    "semeval2010_task8": Source(
        ("semeval2010_task8.dev",), "semeval2010_task8", "semeval2010_task8", "Other", directed=False
    ),
    "redocred": Source(("redocred.dev",), "redocred", "redocred", dev=0.1, typed=True),
    "wiki80": Source(
        ("fewrel.val_wiki", "wiki80.dev", "wiki80.train_0.1"), "wiki80", "fewrel", cap=60, settings={"negatives": 0}
    ),
    "scierc": Source(("scierc.train",), "scierc", "scierc", dev=0.1, cap=300, settings={"negatives": 1}),
}

#: A second, short run on the adapter of the first, so that it knows the list that `add_pipe` shows where no labels are
#: given.
GENERAL_SOURCES = {
    "general": Source(("redocred.dev",), "redocred", "redocred", dev=0.1, general=True),
    **{name: replace(source, cap=source.cap and 20, share=0.12) for name, source in SOURCES.items()},
}

#: For a GPU: every text, and each several times with other lists, wordings and negatives.
FULL_SOURCES = {
    name: replace(source, cap=0, share=1.0, epochs=epochs)
    for (name, source), epochs in zip((*SOURCES.items(), ("general", GENERAL_SOURCES["general"])), (4, 4, 2, 4, 3))
}

#: What the packaged general schema calls relations of Re-DocRED: the name, whether head and tail change places, and the
#: type that the head must have, where that tells two relations apart. Pairs with any other relation become no rows.
GENERAL: dict[str, tuple[str, bool, str]] = {
    "founded by": ("founded_by", False, ""),
    "inception": ("founded_on", False, "ORG"),
    "headquarters location": ("headquartered_in", False, ""),
    "employer": ("works_for", False, ""),
    "member of sports team": ("works_for", False, ""),
    "military branch": ("works_for", False, "PER"),
    "head of government": ("leader_of", True, ""),
    "head of state": ("leader_of", True, ""),
    "chairperson": ("leader_of", True, ""),
    "member of": ("member_of", False, ""),
    "member of political party": ("member_of", False, ""),
    "league": ("member_of", False, ""),
    "educated at": ("educated_at", False, ""),
    "place of birth": ("born_in", False, ""),
    "date of birth": ("born_on", False, ""),
    "place of death": ("died_in", False, ""),
    "date of death": ("died_on", False, ""),
    "residence": ("lives_in", False, ""),
    "country of citizenship": ("nationality", False, ""),
    "spouse": ("spouse", False, ""),
    "child": ("child_of", True, ""),
    "father": ("child_of", False, ""),
    "mother": ("child_of", False, ""),
    "sibling": ("sibling", False, ""),
    "country": ("located_in", False, "LOC"),
    "located in the administrative territorial entity": ("located_in", False, "LOC"),
    "contains administrative territorial entity": ("located_in", True, "LOC"),
    "located on terrain feature": ("located_in", False, "LOC"),
    "continent": ("located_in", False, "LOC"),
    "capital": ("capital_of", True, ""),
    "capital of": ("capital_of", False, ""),
    "parent organization": ("subsidiary_of", False, "ORG"),
    "subsidiary": ("subsidiary_of", True, "ORG"),
    "owned by": ("owned_by", False, ""),
    "developer": ("developed_by", False, ""),
    "manufacturer": ("developed_by", False, ""),
    "author": ("created_by", False, ""),
    "creator": ("created_by", False, ""),
    "composer": ("created_by", False, ""),
    "director": ("created_by", False, ""),
    "screenwriter": ("created_by", False, ""),
    "lyrics by": ("created_by", False, ""),
    "performer": ("performed_by", False, ""),
    "cast member": ("performed_by", False, ""),
    "publication date": ("released_on", False, ""),
    "award received": ("award_received", False, ""),
    "participant of": ("participant_in", False, ""),
    "participant": ("participant_in", True, ""),
    "conflict": ("participant_in", False, ""),
    "location": ("took_place_in", False, "MISC"),
    "point in time": ("took_place_on", False, ""),
}

#: Names alone in lists of every length, or explained; the sentence twice; entity types in the question.
_NAMES = {"negatives": 1.5, "negatives_alone": 1, "min_labels": 2, "max_labels": 20, "shuffle_labels": 0.5, "texts": 8}
_EXPLAINED = {**_NAMES, "paraphrases": 0.3, "definitions": 0.4}
RECIPES: dict[str, dict[str, Any]] = {
    "names": {**_NAMES, "definitions": 0.0},
    "explained": _EXPLAINED,
    "twice": _EXPLAINED,
    "typed": {**_EXPLAINED, "types": 0.5, "typed_user": TYPED_USER},
}
#: Share of the contexts that are asked about with the whole schema by name, as an evaluation does.
WHOLE = 0.4
_WHOLE = {"min_labels": None, "max_labels": None, "shuffle_labels": 0.0, "paraphrases": 0.0, "definitions": 0.0}

ROOT = Path(__file__).resolve().parents[1]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Folder = Annotated[Path, typer.Argument(help="Where rows, adapter and log are.")]


@app.command("rows")
def write(
    recipe: Annotated[str, typer.Argument(help=", ".join(RECIPES))],
    folder: Folder,
    corpus: Annotated[Path, typer.Option(help="The converted data sets.")] = Path("corpus"),
    dev_rows: Annotated[int, typer.Option(help="About how many development rows of each source.")] = 200,
    seed: Annotated[int, typer.Option()] = 0,
    general: Annotated[bool, typer.Option("--general", help="The rows of the second run.")] = False,
    full: Annotated[bool, typer.Option("--full", help="All there is, several times: the rows of a GPU.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Only these sources, for `mix` to weigh.")] = None,
) -> None:
    """Write the rows of a recipe, for training and for development, with the hashes of what they were made of."""
    _note_command(folder)
    facts: dict[str, Any] = {"recipe": recipe, "settings": RECIPES[recipe], "seed": seed, "sources": {}, "corpora": {}}
    train: list[RowGroup] = []
    sources = FULL_SOURCES if full else GENERAL_SOURCES if general else SOURCES
    if unknown := set(only or ()) - set(sources):
        raise typer.BadParameter(f"--only {', '.join(sorted(unknown))}: expected some of {', '.join(sources)}")
    for name, source in sources.items():
        if only and name not in only:
            continue
        groups, dev = _rows(source, recipe, corpus, seed)
        train += groups
        kept = list(_limited(dev, dev_rows, Random(seed)))
        write_rows(folder / f"dev.{name}.jsonl", kept)
        facts["sources"][name] = {"groups": len(groups), "rows": sum(map(len, groups)), "dev_rows": sum(map(len, kept))}
        for file in source.corpora:
            facts["corpora"][file] = hashlib.sha256((corpus / f"{file}.spacy").read_bytes()).hexdigest()
    unseen = list(_limited(_unseen(corpus, recipe, unseen_labels()[1], seed), dev_rows, Random(seed)))
    write_rows(folder / "dev.unseen.jsonl", unseen)
    Random(seed).shuffle(train)
    _write_groups(folder, train, facts)
    typer.echo(json.dumps(facts["sources"]))


@app.command()
def mix(
    folder: Folder,
    sources: Annotated[list[str], typer.Argument(metavar="SHARE:FOLDER...", help="Rows of earlier runs to draw from.")],
    most: Annotated[int, typer.Option(help="Most rows of a group, so that optimiser steps can be small.")] = 10,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Draw groups from the rows of earlier runs, and cut them small: for a run of many small steps."""
    _note_command(folder)
    rng = Random(seed)
    groups: list[RowGroup] = []
    corpora: dict[str, str] = {}
    for source in sources:
        share, _, earlier = source.partition(":")
        found = list(read_rows(Path(earlier) / "rows.jsonl"))
        groups += rng.sample(found, int(len(found) * float(share)))
        corpora |= json.loads((Path(earlier) / "rows.json").read_text(encoding="utf-8"))["corpora"]
    small = [
        replace(group, rows=group.rows[start : start + most])
        for group in groups
        for start in range(0, len(group), most)
    ]
    rng.shuffle(small)
    facts = {"recipe": "mix", "settings": {"sources": sources, "most": most}, "seed": seed, "corpora": corpora}
    n_rows = _write_groups(folder, small, facts)
    typer.echo(f"{len(small)} groups, {n_rows} rows")


@app.command()
def train(
    folder: Folder,
    steps: Annotated[int, typer.Option(help="Most optimiser steps; 0: one pass over all rows.")] = 0,
    learning_rate: Annotated[float, typer.Option()] = 1e-3,
    batch_rows: Annotated[int, typer.Option()] = 32,
    epochs: Annotated[int, typer.Option()] = 1,
    adapter: Annotated[str | None, typer.Option(help="An adapter to go on from.")] = None,
    dtype: Annotated[str, typer.Option()] = "auto",
    max_pack_tokens: Annotated[int | None, typer.Option(help="Of one pass; left out: by device.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that pack ahead of a GPU.")] = 0,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Train on the rows with the stand-alone trainer."""
    _note_command(folder)
    from spacy_relx.training.__main__ import main

    words = [str(folder / "rows.jsonl"), str(folder), "--dropout", "0", "--max-steps", str(steps)]
    words += ["--learning-rate", str(learning_rate), "--batch-rows", str(batch_rows), "--epochs", str(epochs)]
    words += ["--dtype", dtype, "--seed", str(seed), "--weight-decay", "0", "--schedule", "cosine"]
    words += ["--adapter", adapter] if adapter else []
    words += ["--workers", str(workers)]
    words += ["--max-pack-tokens", str(max_pack_tokens)] if max_pack_tokens else []
    raise typer.Exit(main(words))


@app.command()
def dev(
    folder: Folder,
    adapter: Annotated[Path | None, typer.Option(help="The adapter; FOLDER/adapter if left out.")] = None,
    limit: Annotated[int, typer.Option(help="Most groups of each source; 0: all.")] = 0,
) -> None:
    """Print how often the best label is right on the development rows of each source."""
    ask = _Asker(adapter or folder / "adapter")
    results: dict[str, dict[str, float]] = {}
    pooled: list[_Answer] = []
    for path in sorted(folder.glob("dev.*.jsonl")):
        name = path.name.split(".")[1]
        answers = list(ask(islice(read_rows(path), limit or None), has_negative=name != "unseen"))
        results[name] = _measured(answers, 0.0)
        if name in ("general", "redocred"):  # where most pairs hold nothing, as in a text
            pooled += answers
        typer.echo(f"{name}: {results[name]}")
    if pooled:
        best = max(sorted({answer.score for answer in pooled}), key=lambda at: _measured(pooled, at)["f1"])
        results["threshold"] = {"threshold": round(best, 3), **_measured(pooled, best)}
        typer.echo(f"best threshold: {results['threshold']}")
        for at in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
            typer.echo(f"at {at}: {_measured(pooled, at)}")
    (folder / "dev.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


@app.command()
def unseen(
    folder: Folder,
    corpus: Annotated[Path, typer.Option(help="The converted data sets.")] = Path("corpus"),
    adapter: Annotated[Path | None, typer.Option(help="The adapter; FOLDER/adapter if left out.")] = None,
) -> None:
    """Print the accuracy on the 16 held-out labels: for each given pair, a choice among the 16 names."""
    folder.mkdir(parents=True, exist_ok=True)  # before, not after, what takes minutes
    groups = _unseen(corpus, "explained", unseen_labels()[0], seed=0)
    result = _measured(list(_Asker(adapter or folder / "adapter")(groups, has_negative=False)), 0.0)
    typer.echo(f"{', '.join(unseen_labels()[0])}: {result}")
    (folder / "unseen.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


@app.command()
def ship(
    folder: Folder,
    threshold: Annotated[float, typer.Option(help="The default threshold, found on development rows.")],
    adapter: Annotated[Path | None, typer.Option(help="The adapter; FOLDER/adapter if left out.")] = None,
    before: Annotated[list[Path] | None, typer.Option(help="Folders of the runs that it goes on from.")] = None,
    machine: Annotated[str, typer.Option(help="What it was trained on.")] = "two cores of an AMD EPYC, bfloat16",
) -> None:
    """Copy the adapter into the package, with its threshold, what it was made of, and the record of its training."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    from spacy_relx.engine.adapter import CONFIG, METADATA_KEY, WEIGHTS
    from spacy_relx.engine.spec import EMBEDDED_ADAPTER

    source = adapter or folder / "adapter"
    target = ROOT / "spacy_relx" / "adapters" / EMBEDDED_ADAPTER
    target.mkdir(parents=True, exist_ok=True)
    with safe_open(source / WEIGHTS, "pt") as file:
        facts = json.loads(file.metadata()[METADATA_KEY])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    facts |= {"threshold": threshold, "scoring": "trie", "schema": "general"}
    save_file(tensors, target / WEIGHTS, metadata={"format": "pt", METADATA_KEY: json.dumps(facts, sort_keys=True)})
    (target / CONFIG).write_text((source / CONFIG).read_text(encoding="utf-8"), encoding="utf-8")
    record = {"machine": machine, "runs": [_record(run) for run in (*(before or ()), folder)]}
    record["development"] = json.loads((folder / "dev.json").read_text(encoding="utf-8"))
    (target / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    typer.echo(f"{target}: {(target / WEIGHTS).stat().st_size / 1e6:.1f} MB")


def _write_groups(folder: Path, groups: list[RowGroup], facts: dict[str, Any]) -> int:
    """Write rows, and beside them what they were made of and their hash; returns how many there are."""
    n_rows = write_rows(folder / "rows.jsonl", groups)
    digest = hashlib.sha256((folder / "rows.jsonl").read_bytes()).hexdigest()
    (folder / "rows.json").write_text(
        json.dumps(facts | {"rows": n_rows, "sha256": digest}, indent=2) + "\n", encoding="utf-8"
    )
    return n_rows


def _note_command(folder: Path) -> None:
    """Keep what was typed, for the record of a run that is shipped."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "commands.txt").open("a", encoding="utf-8") as file:
        file.write(" ".join(["python", *sys.argv]) + "\n")


def _record(run: Path) -> dict[str, Any]:
    """What a run was made of, and how it went: its rows, its commands, and its log in a few figures."""
    facts = json.loads((run / "rows.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "commands": (run / "commands.txt").read_text(encoding="utf-8").splitlines(),
        **{name: facts[name] for name in ("seed", "settings", "corpora")},
        "rows_sha256": facts["sha256"],
        "steps": len(lines),
        "rows": sum(line["n_rows"] for line in lines),
        "tokens": sum(line["n_tokens"] for line in lines),
        "minutes": round(lines[-1]["total_seconds"] / 60, 1),
        "first_loss": _mean_loss(lines[:20]),
        "last_loss": _mean_loss(lines[-20:]),
    }


def _mean_loss(lines: list[dict[str, Any]]) -> float:
    return round(sum(line["loss"] for line in lines) / len(lines), 3)


@dataclass(frozen=True, slots=True)
class _Answer:
    """One answer: whether it is right, whether it says or should say that a relation holds, and its score."""

    is_right: bool
    is_claim: bool
    holds: bool
    score: float


class _Asker:
    """Asks the embedded model, with an adapter, about the rows of groups."""

    def __init__(self, adapter: Path) -> None:
        from spacy_relx.engine.loading import load_model
        from spacy_relx.engine.packed import PackedEngine
        from spacy_relx.engine.spec import EMBEDDED_BASE, ModelSpec
        from spacy_relx.training.encode import Encoder

        loaded = load_model(ModelSpec(base=EMBEDDED_BASE, adapter=str(adapter)))
        self._engine, self._encoder = PackedEngine(loaded), Encoder(loaded.tokenizer)

    def __call__(self, groups: Iterable[RowGroup], *, has_negative: bool) -> Iterator[_Answer]:
        from spacy_relx.engine.types import LabelIds, Question

        for group in groups:
            chat = self._encoder.chat(group.turns)
            labels = LabelIds(tuple(chat.answer_ids(label) for label in group.labels), chat.terminal)
            right: dict[str, set[str]] = {}
            for question, answer in group.rows:
                right.setdefault(question, set()).add(answer)
            every = tuple(range(len(labels)))
            rankings = self._engine.rank([Question(chat.prompt(question), every) for question in right], labels)
            negative = group.labels[-1] if has_negative else None
            for ranking, gold in zip(rankings, right.values()):
                best = ranking.scores[0]
                said = group.labels[best.label]
                yield _Answer(said in gold, said != negative, negative not in gold, best.prob)


def _measured(answers: list[_Answer], threshold: float) -> dict[str, float]:
    """Accuracy of the best label, and what relations at or above a threshold are worth."""
    claims = [answer for answer in answers if answer.is_claim and answer.score >= threshold]
    n_gold = sum(answer.holds for answer in answers)
    hits = sum(answer.is_right for answer in claims)
    wrong = sum(not answer.holds for answer in claims)
    values = {
        "accuracy": sum(answer.is_right for answer in answers) / len(answers),
        "precision": hits / max(len(claims), 1),
        "recall": hits / max(n_gold, 1),
        "f1": 2 * hits / max(len(claims) + n_gold, 1),
        "false_positive_rate": wrong / max(len(answers) - n_gold, 1),
    }
    return {"n": len(answers), **{name: round(value, 4) for name, value in values.items()}}


def _rows(source: Source, recipe: str, corpus: Path, seed: int) -> tuple[list[RowGroup], list[RowGroup]]:
    """The groups of a source for training and for development."""
    from spacy_relx.schema import make_schema

    schema = make_schema(name=source.schema)
    kept = [label for label in schema if label.name not in HELD_OUT]
    schema = replace(schema, labels=tuple(kept))
    contexts = list(_contexts(source, schema, corpus, seed))
    n_dev = int(len(contexts) * source.dev)
    train, dev = contexts[:-n_dev], contexts[-n_dev:]
    train = Random(seed).sample(train, int(len(train) * source.share))
    if source.general:
        schema = make_schema(name="general")
        train, dev = (settled(map(_in_general, part)) for part in (train, dev))
    wording = _wording(recipe)
    pool = Demonstrations(train)
    varied = {**RECIPES[recipe], "wordings": source.wordings, "seed": seed, **source.settings}
    if not source.typed:
        varied.pop("types", None)
    groups: list[RowGroup] = []
    for epoch in range(source.epochs):
        rng = Random(f"{seed}:{epoch}")
        whole, rest = [], []
        for context in train:
            (whole if rng.random() < WHOLE else rest).append(context)
        for part, settings in ((whole, {**varied, **_WHOLE, "texts": 16}), (rest, varied)):
            if source.general:
                settings = {**settings, "paraphrases": 0.0, "definitions": 1.0 if part is whole else 0.5}
            mixture = mixture_from({**settings, "examples": [0, 0, 0, 2]})
            groups += epoch_groups(part, schema, wording, source.no_relation, mixture, epoch, pool)
    shown = {**varied, **_WHOLE, "texts": 12, "types": 0, "negatives": None, "negatives_alone": None}
    plain = mixture_from({**shown, "definitions": 1.0} if source.general else shown)
    return groups, list(epoch_groups(dev, schema, wording, source.no_relation, plain, 0))


def _contexts(source: Source, schema: Any, corpus: Path, seed: int, only: Any = None) -> Iterator[AnnotatedContext]:
    """The annotated contexts of a source, each text once, without what is held out; `only`: of these labels."""
    import spacy

    from spacy_relx._inputs import load_docbin
    from spacy_relx.training.sentences import read_contexts

    nlp = spacy.blank("en")
    component = nlp.add_pipe(
        "llama_relation_extractor",
        config={
            "labels": list(schema.names) if only else {"@misc": "spacy-relx.Schema.v1", "name": source.schema},
            "no_relation": source.no_relation,
            "candidates": {
                "@misc": "spacy-relx.EntityPairs.v1",
                "scope": "doc",
                "spans_key": "gold",
                "directed": source.directed,
            },
        },
    )
    docs = [doc for file in source.corpora for doc in load_docbin(corpus / f"{file}.spacy").get_docs(nlp.vocab)]
    secret = {clean(doc.text) for doc in docs if any(rel.label in HELD_OUT for rel in doc._.relations)}
    seen: set[str] = set()
    chosen = []
    for doc in docs:
        text = clean(doc.text)
        held_out = any(rel.label in (only or ()) for rel in doc._.relations)
        if text not in seen and (held_out if only else text not in secret):
            seen.add(text)
            chosen.append(doc)
    if source.cap:
        Random(seed).shuffle(chosen)
        counts: Counter[str] = Counter()
        for doc in chosen:
            counts.update(rel.label for rel in doc._.relations)
            if any(counts[rel.label] > source.cap for rel in doc._.relations):
                doc._.relations = []
        chosen = [doc for doc in chosen if len(doc._.relations)]
    yield from settled(read_contexts(component, chosen))


def _in_general(context: AnnotatedContext) -> AnnotatedContext:
    """The context with its relations under the names of the general schema."""
    labels: dict[tuple[str, str], set[str]] = {}
    other: set[tuple[str, str]] = set()
    for pair in context.pairs:
        key = (pair.head, pair.tail)
        for label in pair.labels:
            name, turned, head_type = GENERAL.get(label, ("", False, ""))
            first, last = (pair.tail_type, key[::-1]) if turned else (pair.head_type, key)
            if not name or head_type not in ("", first):
                other |= {key, key[::-1]}
                continue
            labels.setdefault(last, set()).add(name)
            if name in ("spouse", "sibling"):
                labels.setdefault(last[::-1], set()).add(name)

    def renamed(pair: AnnotatedPair) -> AnnotatedPair:
        return replace(pair, labels=tuple(sorted(labels.get((pair.head, pair.tail), ()))), allowed=())

    pairs = map(renamed, context.pairs)
    return replace(context, pairs=tuple(p for p in pairs if p.labels or (p.head, p.tail) not in other))


def _unseen(corpus: Path, recipe: str, labels: list[str], seed: int) -> Iterator[RowGroup]:
    """Rows of labels that are never trained on: the given pair, and a choice among these labels."""
    from spacy_relx.schema import parse_labels

    schema = parse_labels(labels)
    source = replace(SOURCES["wiki80"], corpora=("wiki80.dev", "wiki80.train_0.1"), cap=0)
    mixture = Mixture(negatives=0, negatives_alone=0, both_orders=False, texts=12)
    yield from epoch_groups(
        list(_contexts(source, schema, corpus, seed, set(labels))), schema, _wording(recipe), None, mixture
    )


def _wording(recipe: str) -> Any:
    return make_gentune_prompt(user=TWICE_USER if recipe == "twice" else None)


def _limited(groups: Iterable[RowGroup], n: int, rng: Random) -> Iterator[RowGroup]:
    """Random groups until there are `n` rows."""
    ordered = list(groups)
    rng.shuffle(ordered)
    total = 0
    for group in ordered:
        if total >= n:
            return
        total += len(group)
        yield group


if __name__ == "__main__":
    app()
