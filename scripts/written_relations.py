"""Rows of relations that were written for this package, to teach a model kinds of relations that no data set has.

    python scripts/written_relations.py check                        # what is wrong with the files, if anything
    python scripts/written_relations.py rows training/written        # for `train_embedded.py mix`

The files in `scripts/written_relations/` hold several hundred relations, each with names, a definition and sentences.
In most of the sentences a relation is implied by their meaning and stands there by none of its names. Relations of one
file exclude each other; those of different files are listed together if their names share no word.

The packaged adapter was not trained on them. They leave out what `train_embedded.py` holds out.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated

import typer
from train_embedded import HELD_OUT, Folder, _note_command, _write_groups
from training_rows import HELD_OUT_WORDS, NONE, make_group, question, styled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from spacy_relx.training.rows import RowGroup

_MARK = re.compile(r"\[([htx]):([^][]+)\]")
_FOLDER = Path(__file__).with_suffix("")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text with a pair that holds a relation, and entities beside it.

    Attributes:
        text: The text.
        head: The pair's head.
        tail: The pair's tail.
        others: Entities that hold the relation with neither.
    """

    text: str
    head: str
    tail: str
    others: tuple[str, ...]

    def question(self, head: str, tail: str) -> str:
        """The user turn about two of its entities."""
        return question(self.text, head, tail)


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation.

    Attributes:
        file: Name of the file that it is in.
        name: Its name.
        names: Other names.
        definition: What it means.
        sentences: Sentences that say it.
    """

    file: str
    name: str
    names: tuple[str, ...]
    definition: str
    sentences: tuple[Sentence, ...]

    @property
    def words(self) -> set[str]:
        """The words of all its names."""
        return set().union(*(re.findall("[a-z]{4,}", name.lower()) for name in (self.name, *self.names)))


def read_relations(folder: Path = _FOLDER) -> list[Relation]:
    """The relations of all files of a folder."""
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            data = json.loads(line)
            sentences = tuple(map(_read_sentence, data["sentences"]))
            found.append(Relation(path.stem, data["name"], tuple(data["names"]), data["definition"], sentences))
    return found


def _read_sentence(marked: str) -> Sentence:
    entities = defaultdict(list)
    for kind, text in _MARK.findall(marked):
        entities[kind].append(text)
    (head,), (tail,) = entities["h"], entities["t"]
    return Sentence(_MARK.sub(r"\2", marked), head, tail, tuple(entities["x"]))


@app.command()
def check(folder: Annotated[Path, typer.Argument(help="Where the files are.")] = _FOLDER) -> None:
    """Print what is wrong with the files; fail if anything is."""
    wrong = list(_faults(read_relations(folder)))
    for fault in wrong:
        typer.echo(fault)
    raise typer.Exit(bool(wrong))


def _faults(relations: Sequence[Relation]) -> Iterator[str]:
    seen: dict[tuple[str, str], str] = {}
    for relation in relations:
        for name in (relation.name, *relation.names):
            if HELD_OUT_WORDS.search(name.lower()) or name.lower().replace("_", " ") in HELD_OUT:
                yield f"{relation.file}: {name!r} says what a held-out name says"
            key = (relation.file, name.lower().replace("_", " "))
            if seen.setdefault(key, relation.name) != relation.name:
                yield f"{relation.file}: {name!r} is a name of both {seen[key]!r} and {relation.name!r}"
        for sentence in relation.sentences:
            if sentence.head == sentence.tail:
                yield f"{relation.file}: {relation.name!r} holds between two entities of one text: {sentence.text}"


@app.command()
def rows(
    folder: Folder,
    n_rows: Annotated[int, typer.Option(help="About how many rows.")] = 14000,
    source: Annotated[Path, typer.Option(help="Where the files are.")] = _FOLDER,
    seed: Annotated[int, typer.Option()] = 31,
) -> None:
    """Write rows that ask which of several relations holds, or whether any does."""
    _note_command(folder)
    relations = read_relations(source)
    lists = _Lists(relations, Random(seed))
    groups: list[RowGroup] = []
    while sum(map(len, groups)) < n_rows:
        groups.append(lists.draw())
    hashes = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(source.glob("*.jsonl"))}
    facts = {"recipe": "written relations", "settings": {"n_rows": n_rows}, "seed": seed, "corpora": hashes}
    written = _write_groups(folder, groups, facts)
    typer.echo(f"{len(groups)} groups, {written} rows, {len(relations)} relations")


class _Lists:
    """Lists of relations and pairs to ask about.

    Args:
        relations: All relations.
        rng: Of all draws.
    """

    def __init__(self, relations: Sequence[Relation], rng: Random) -> None:
        self._relations = relations
        self._rng = rng
        self._by_file: defaultdict[str, list[Relation]] = defaultdict(list)
        for relation in relations:
            self._by_file[relation.file].append(relation)
        self._words = {id(relation): relation.words for relation in relations}
        self._left: dict[int, list[Sentence]] = {}

    def draw(self) -> RowGroup:
        """A list of relations, and pairs that hold one of them or none."""
        rng = self._rng
        chosen = self._chosen(rng.randint(4, 18))
        names: dict[int, str] = {}
        taken: set[str] = set()
        for relation in chosen:
            name = self._name(relation)
            if name.casefold() not in taken:
                names[id(relation)] = name
                taken.add(name.casefold())
        asked = [relation for relation in chosen if id(relation) in names]
        found = []
        for _ in range(rng.randint(8, 14)):
            relation = rng.choice(asked)
            sentence = self._sentence(relation)
            found.append((sentence.question(sentence.head, sentence.tail), names[id(relation)]))
        if rng.random() < 0.4:
            empty = [self._empty(asked) for _ in range(rng.randint(2, 5))]
            found += [row for row in empty if row]
        explains = rng.random() < 0.15
        means = {names[id(relation)]: relation.definition for relation in asked} if explains else None
        return make_group(names.values(), found, rng, means)

    def _chosen(self, n: int) -> list[Relation]:
        """Relations of one file, which exclude each other, or of all, as far as their names share no word."""
        rng = self._rng
        if rng.random() < 0.5:
            file = rng.choice(sorted(self._by_file))
            return rng.sample(self._by_file[file], min(n, len(self._by_file[file])))
        chosen: list[Relation] = []
        taken: set[str] = set()
        for relation in rng.sample(self._relations, len(self._relations)):
            words = self._words[id(relation)]
            if not words & taken:
                chosen.append(relation)
                taken |= words
            if len(chosen) == n:
                break
        return chosen

    def _sentence(self, relation: Relation) -> Sentence:
        """One of its sentences; all of them come before any comes again."""
        left = self._left.setdefault(id(relation), [])
        if not left:
            left += self._rng.sample(relation.sentences, len(relation.sentences))
        return left.pop()

    def _empty(self, asked: Sequence[Relation]) -> tuple[str, str] | None:
        """A question about a pair that holds none of some relations: of another relation, or beside a pair of one."""
        rng = self._rng
        sentence = rng.choice(rng.choice(asked).sentences)
        if sentence.others and rng.random() < 0.5:
            pair = [rng.choice(sentence.others), rng.choice((sentence.head, sentence.tail))]
            rng.shuffle(pair)
            return sentence.question(*pair), NONE
        words = set().union(*(self._words[id(relation)] for relation in asked))
        file = rng.choice(asked).file
        free = [each for each in self._by_file[file] if each not in asked and not self._words[id(each)] & words]
        if not free:
            return None
        sentence = rng.choice(rng.choice(free).sentences)
        return sentence.question(sentence.head, sentence.tail), NONE

    def _name(self, relation: Relation) -> str:
        """Its name, or another of its names, at times as a program would write it."""
        rng = self._rng
        return styled(relation.name if rng.random() < 0.4 else rng.choice(relation.names), rng)


if __name__ == "__main__":
    sys.exit(app())
