"""The documents that are asked about: made up to a size, so that nobody needs data to measure. Text only, no spaCy."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_FIRST = _words("Ada Ben Cleo Dan Eva Finn Gita Hugo Ines Jon Kira Leo Mara Nils Olga Paul Rosa Sven Tara Uwe")
_LAST = _words("Hale Reyes Stone Kern Novak Lind Ortiz Weber Sato Blum Craig Dunn Ferro Grant Huber")
_FIRM = _words("Harbor Northgate Acme Delta Summit Orchid Falcon Granite Juniper Lantern Meridian Nimbus")
_KIND = _words("Mills Bank Steel Press Foods Motors Systems Labs Airways Energy")
_PLACE = _words("Lisbon Ohio Oslo Kenya Lyon Perth Quito Turin Utrecht Vienna Zagreb Bristol Cusco Dakar Exeter")
_PART = _words("North South East West Upper Lower New Old Port Saint")
_LINK = tuple(
    map(_words, ("met", "moved to", "worked at", "wrote about", "joined", "left", "was sued by", "paid a visit to"))
)
_FILLER = _words("as the local papers said at the time in a short note that few people had read with much care")


@dataclass(frozen=True, slots=True)
class Mention:
    """An entity as it stands in a text; `end` is exclusive, both count words."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class Document:
    """Words, and the entities among them.

    Attributes:
        words: The words; the text is them with a space between.
        mentions: The entities, in the order of the text.
    """

    words: tuple[str, ...]
    mentions: tuple[Mention, ...]

    @property
    def text(self) -> str:
        """The words with a space between them."""
        return " ".join(self.words)

    def text_of(self, mention: Mention) -> str:
        """The words of one entity."""
        return " ".join(self.words[mention.start : mention.end])

    def pairs(self) -> list[tuple[Mention, Mention]]:
        """All ordered pairs of two entities, head by head."""
        return [(a, b) for a in self.mentions for b in self.mentions if a is not b]


def made_up(
    n_documents: int, n_entities: int | tuple[int, int] = (2, 5), n_words: int | None = None, seed: int = 0
) -> list[Document]:
    """Make documents of one sentence each; the same arguments give the same documents.

    Args:
        n_documents: How many.
        n_entities: Entities of each, or the least and the most of them.
        n_words: Words of each, or None for as many as the entities need. A document is never shorter than that.
        seed: Other seeds give other documents.

    Raises:
        ValueError: If a document would have fewer than two entities.
    """
    least, most = (n_entities, n_entities) if isinstance(n_entities, int) else n_entities
    if not 2 <= least <= most:
        raise ValueError(f"n_entities is {n_entities!r}. Expected at least 2: a pair needs two of them.")
    rng = random.Random(f"{seed}")
    return [_document(rng, rng.randint(least, most), n_words) for _ in range(n_documents)]


def _document(rng: random.Random, n_entities: int, n_words: int | None) -> Document:
    names = _names(rng)
    words: list[str] = ["On", "Monday"]
    mentions = []
    for i in range(n_entities):
        if i:
            # Links are not counted exactly; what is missing to `n_words` is spread over the gaps.
            words += rng.choice(_LINK)
            words += _filler(rng, n_words, len(words), i, n_entities)
        label, name = next(names)
        mentions.append(Mention(len(words), len(words) + len(name), label))
        words += name
    words += _filler(rng, n_words, len(words) + 1, n_entities, n_entities)
    return Document((*words, "."), tuple(mentions))


def _filler(rng: random.Random, n_words: int | None, so_far: int, gap: int, n_gaps: int) -> list[str]:
    wanted = 0 if n_words is None else n_words * gap // n_gaps - so_far
    start = rng.randrange(len(_FILLER))
    return [_FILLER[(start + i) % len(_FILLER)] for i in range(max(0, wanted))]


def _names(rng: random.Random) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Types and names without end, no name twice before every one has been used."""
    people = [("PERSON", (a, b)) for a in _FIRST for b in _LAST]
    firms = [("ORG", (a, b)) for a in _FIRM for b in _KIND]
    places = [("GPE", (b,)) for b in _PLACE] + [("GPE", (a, b)) for a in _PART for b in _PLACE]
    pools: list[list[tuple[str, tuple[str, ...]]]] = [people, firms, places]  # type: ignore[list-item]
    for pool in pools:
        rng.shuffle(pool)
    i = 0
    while True:
        pool = pools[i % len(pools)]
        yield pool[i // len(pools) % len(pool)]
        i += 1
