"""How the adapter of the embedded model was trained: rows of four openly licensed data sets, and four recipes.

    python scripts/train_embedded.py rows explained training/embedded      # rows for training and development
    python scripts/train_embedded.py train training/embedded --steps 1000  # goes on after a kill
    python scripts/train_embedded.py dev training/embedded                 # how good it is on the development rows

What the adapter is never shown: test sets; the 22 relations of Wiki80 that are held out to be asked about unseen, and
every sentence that they occur in; CoNLL04, GIDS, NYT, KBP37 and WebNLG, which have no licence or one that forbids it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spacy_relx.prompts import clean, make_gentune_prompt
from spacy_relx.training.contexts import settled
from spacy_relx.training.demonstrations import Demonstrations
from spacy_relx.training.groups import epoch_groups
from spacy_relx.training.mixture import Mixture, mixture_from
from spacy_relx.training.rows import read_rows, write_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from spacy_relx.training.contexts import AnnotatedContext
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
        typed: Whether its entities have types.
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
    typed: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


SOURCES = {
    "semeval2010_task8": Source(
        ("semeval2010_task8.dev",), "semeval2010_task8", "semeval2010_task8", "Other", directed=False
    ),
    "redocred": Source(("redocred.dev",), "redocred", "redocred", dev=0.1, typed=True),
    "wiki80": Source(
        ("fewrel.dev", "wiki80.dev", "wiki80.train"), "wiki80", "fewrel", cap=60, settings={"negatives": 0}
    ),
    "scierc": Source(("scierc.train",), "scierc", "scierc", dev=0.1, cap=300, settings={"negatives": 1}),
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

app = typer.Typer(add_completion=False)
Folder = Annotated[Path, typer.Argument(help="Where rows, adapter and log are.")]


@app.command("rows")
def write(
    recipe: Annotated[str, typer.Argument(help=", ".join(RECIPES))],
    folder: Folder,
    corpus: Annotated[Path, typer.Option(help="The converted data sets.")] = Path("corpus"),
    dev_rows: Annotated[int, typer.Option(help="About how many development rows of each source.")] = 200,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Write the rows of a recipe, for training and for development, with the hashes of what they were made of."""
    facts: dict[str, Any] = {"recipe": recipe, "settings": RECIPES[recipe], "seed": seed, "sources": {}, "corpora": {}}
    train: list[RowGroup] = []
    for name, source in SOURCES.items():
        groups, dev = _rows(source, recipe, corpus, seed)
        train += groups
        kept = list(_limited(dev, dev_rows, seed))
        write_rows(folder / f"dev.{name}.jsonl", kept)
        facts["sources"][name] = {"groups": len(groups), "rows": sum(map(len, groups)), "dev_rows": sum(map(len, kept))}
        for file in source.corpora:
            facts["corpora"][file] = hashlib.sha256((corpus / f"{file}.spacy").read_bytes()).hexdigest()
    unseen = list(_limited(_unseen(corpus, recipe, unseen_labels()[1], seed), dev_rows, seed))
    write_rows(folder / "dev.unseen.jsonl", unseen)
    Random(seed).shuffle(train)
    facts["rows"] = write_rows(folder / "rows.jsonl", train)
    facts["sha256"] = hashlib.sha256((folder / "rows.jsonl").read_bytes()).hexdigest()
    (folder / "rows.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    typer.echo(json.dumps(facts["sources"]))


@app.command()
def train(
    folder: Folder,
    steps: Annotated[int, typer.Option(help="Most optimiser steps; 0: one pass over all rows.")] = 0,
    learning_rate: Annotated[float, typer.Option()] = 1e-3,
    batch_rows: Annotated[int, typer.Option()] = 32,
    epochs: Annotated[int, typer.Option()] = 1,
    adapter: Annotated[str | None, typer.Option(help="An adapter to go on from.")] = None,
    dtype: Annotated[str, typer.Option()] = "auto",
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Train on the rows with the stand-alone trainer."""
    from spacy_relx.training.__main__ import main

    words = [str(folder / "rows.jsonl"), str(folder), "--dropout", "0", "--max-steps", str(steps)]
    words += ["--learning-rate", str(learning_rate), "--batch-rows", str(batch_rows), "--epochs", str(epochs)]
    words += ["--dtype", dtype, "--seed", str(seed), "--weight-decay", "0", "--schedule", "cosine"]
    words += ["--adapter", adapter] if adapter else []
    raise typer.Exit(main(words))


@app.command()
def dev(
    folder: Folder,
    adapter: Annotated[Path | None, typer.Option(help="The adapter; FOLDER/adapter if left out.")] = None,
    limit: Annotated[int, typer.Option(help="Most groups of each source; 0: all.")] = 0,
) -> None:
    """Print how often the best label is right on the development rows of each source."""
    from spacy_relx.engine.loading import load_model
    from spacy_relx.engine.packed import PackedEngine
    from spacy_relx.engine.spec import EMBEDDED_BASE, ModelSpec
    from spacy_relx.engine.types import LabelIds, Question
    from spacy_relx.training.encode import Encoder

    loaded = load_model(ModelSpec(base=EMBEDDED_BASE, adapter=str(adapter or folder / "adapter")))
    engine, encoder = PackedEngine(loaded), Encoder(loaded.tokenizer)
    results: dict[str, dict[str, float]] = {}
    for path in sorted(folder.glob("dev.*.jsonl")):
        counts: Counter[str] = Counter()
        for number, group in enumerate(read_rows(path)):
            if limit and number == limit:
                break
            chat = encoder.chat(group.turns)
            labels = LabelIds(tuple(chat.answer_ids(label) for label in group.labels), chat.terminal)
            asked: dict[str, set[str]] = {}
            for question, answer in group.rows:
                asked.setdefault(question, set()).add(answer)
            every = tuple(range(len(labels)))
            rankings = engine.rank([Question(chat.prompt(question), every) for question in asked], labels)
            negative = group.labels[-1]
            for ranking, right in zip(rankings, asked.values()):
                said = group.labels[ranking.scores[0].label]
                kind = "negative" if negative in right else "positive"
                counts.update({kind: 1, f"{kind} right": int(said in right), f"said {said == negative}": 1})
        n = counts["positive"] + counts["negative"]
        hits, claimed = counts["positive right"], counts["said False"]
        results[path.name.split(".")[1]] = {
            "n": n,
            "accuracy": round((hits + counts["negative right"]) / n, 4),
            "precision": round(hits / max(claimed, 1), 4),
            "recall": round(hits / max(counts["positive"], 1), 4),
            "f1": round(2 * hits / max(claimed + counts["positive"], 1), 4),
        }
        typer.echo(f"{path.name}: {results[path.name.split('.')[1]]}")
    (folder / "dev.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def _rows(source: Source, recipe: str, corpus: Path, seed: int) -> tuple[list[RowGroup], list[RowGroup]]:
    """The groups of a source for training and for development."""
    from spacy_relx.schema import make_schema

    schema = make_schema(name=source.schema)
    kept = [label for label in schema if label.name not in HELD_OUT]
    schema = replace(schema, labels=tuple(kept))
    contexts = list(_contexts(source, schema, corpus, seed))
    n_dev = int(len(contexts) * source.dev)
    train, dev = contexts[:-n_dev], contexts[-n_dev:]
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
            mixture = mixture_from({**settings, "examples": [0, 0, 0, 2]})
            groups += epoch_groups(part, schema, wording, source.no_relation, mixture, epoch, pool)
    plain = mixture_from({**varied, **_WHOLE, "texts": 12, "types": 0, "negatives": None, "negatives_alone": None})
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


def _unseen(corpus: Path, recipe: str, labels: list[str], seed: int) -> Iterator[RowGroup]:
    """Rows of labels that are never trained on: the given pair, and a choice among these labels."""
    from spacy_relx.schema import parse_labels

    schema = parse_labels(labels)
    source = replace(SOURCES["wiki80"], corpora=("wiki80.dev", "wiki80.train"), cap=0)
    mixture = Mixture(negatives=0, negatives_alone=0, both_orders=False, texts=12)
    yield from epoch_groups(
        list(_contexts(source, schema, corpus, seed, set(labels))), schema, _wording(recipe), None, mixture
    )


def _wording(recipe: str) -> Any:
    return make_gentune_prompt(user=TWICE_USER if recipe == "twice" else None)


def _limited(groups: list[RowGroup] | Iterator[RowGroup], n: int, seed: int) -> Iterator[RowGroup]:
    """Random groups until there are `n` rows."""
    ordered = list(groups)
    Random(seed).shuffle(ordered)
    total = 0
    for group in ordered:
        if total >= n:
            return
        total += len(group)
        yield group


if __name__ == "__main__":
    app()
