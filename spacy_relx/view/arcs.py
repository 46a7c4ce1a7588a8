"""The arcs of a picture: which words are drawn, where they stand, and displaCy's renderer to draw them."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from spacy.displacy.render import DependencyRenderer, EntityRenderer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spacy.tokens import Span

    from spacy_relx.relation import Relation

CHAR_WIDTH = 8.8
"""Estimated width in px of one Latin letter of a picture's words, which are set in 16px; fonts differ."""
BOLD_CHAR_WIDTH = 10.2
"""The same for mentions, which are set in bold type."""
LABEL_CHAR_WIDTH = 9.0
"""Estimated width in px of one letter of an arc's label: bold 13px type with 1px of letter spacing."""
LEVEL_HEIGHT = 42
"""Height in px that each further arc over the same words adds."""


class Word(NamedTuple):
    """One word of a picture: a token, a mention, or the note that stands for left-out tokens."""

    text: str
    tag: str
    is_mention: bool


def draw_arcs(scope: Span, relations: Sequence[Relation], settings: Mapping[str, str], options: dict[str, Any]) -> str:
    """Return the relations inside one stretch of text as arcs in SVG, or "" if there is none to draw.

    Args:
        scope: The stretch.
        relations: Relations with both mentions inside it.
        settings: displaCy's `lang` and `direction` of the Doc.
        options: Those of `spacy_relx.view.render`.
    """
    words, index = _words(scope, relations, options.get("max_gap", 24))
    if settings["direction"] == "rtl":
        # displaCy's own mirroring leaves the labels upside down where browsers ignore a textPath's side.
        words, index = words[::-1], {token: len(words) - 1 - i for token, i in index.items()}
    arcs = []
    for r in relations:
        head, tail = index[r.head.start], index[r.tail.start]
        if head == tail:  # overlapping mentions share a word; the table has the relation
            continue
        label = escape(f"{r.label} {r.score:.2f}")
        # The arrow says the direction at a glance, and tells two arcs apart that differ in nothing else.
        label = f"{label} →" if head < tail else f"← {label}"
        direction = "right" if head < tail else "left"
        arcs.append({"start": min(head, tail), "end": max(head, tail), "label": label, "dir": direction})
    if not arcs:
        return ""
    renderer = _ArcRenderer(options, words, arcs)
    renderer.lang = settings["lang"]
    # The arcs' labels refer to ids, which have to differ between the pictures of a page but not between two runs.
    unique = hashlib.sha256(repr((scope.start, scope.doc.text, words, arcs)).encode()).hexdigest()[:16]
    drawn = [{"text": word.text, "tag": escape(word.tag)} for word in words]
    return str(renderer.render_svg(f"relx-{unique}", drawn, arcs))


def _words(scope: Span, relations: Sequence[Relation], max_gap: int) -> tuple[list[Word], dict[int, int]]:
    """Split a stretch into words, each mention one word, and map the tokens of mentions to their words."""
    merged: list[list[Any]] = []
    for m in sorted({m for r in relations for m in (r.head, r.tail)}, key=lambda m: (m.start, -m.end)):
        if merged and m.start < merged[-1][1]:
            merged[-1][1] = max(m.end, merged[-1][1])
        else:
            merged.append([m.start, m.end, m.label_])
    words: list[Word] = []
    index: dict[int, int] = {}
    borders = [[scope.start, scope.start, ""], *merged, [scope.end, scope.end, ""]]
    for (_, gap_start, _), (start, end, label) in pairwise(borders):
        gap = [t.text for t in scope.doc[gap_start:start] if not t.is_space]
        # Around the outermost mentions there is no arc to follow, so less of the text is needed.
        limit = max_gap if gap_start > scope.start and start < scope.end else max_gap // 2
        if len(gap) > limit:
            after = 0 if gap_start == scope.start else limit // 2
            before = 0 if start == scope.end else limit - after
            left_out = len(gap) - after - before
            gap = [*gap[:after], f"… {left_out} words …", *gap[len(gap) - before :]]
        words.extend(Word(text, "", False) for text in gap)
        if start < end:
            index.update(dict.fromkeys(range(start, end), len(words)))
            words.append(Word(" ".join(scope.doc[start:end].text.split()), label, True))
    return words, index


class _ArcRenderer(DependencyRenderer):  # type: ignore[misc] # spaCy's classes are untyped here
    """displaCy's arcs, with words as far apart as they need and every arc on a level of its own.

    displaCy gives each word the same width, so long mentions overlap, and it numbers levels in the order of a set,
    so the picture changes from run to run. Its drawing methods take positions in units of `distance`; here they get
    fractions of them.
    """

    def __init__(self, options: dict[str, Any], words: Sequence[Word], arcs: Sequence[dict[str, Any]]) -> None:
        super().__init__(options)
        self.words = words
        entities = EntityRenderer(options)
        self.colors, self.default_color = entities.colors, entities.default_color
        self.word_spacing = 36
        centres = self._centres(words, arcs)
        self.total_width = centres[-1] + _width(words[-1]) / 2 + 24
        self.distance = 2 * LEVEL_HEIGHT  # displaCy adds half a distance of height a level
        self.offset_x = 0
        self.slots = [x / self.distance for x in centres]

    @property
    def width(self) -> float:
        """Width of the picture in px."""
        return self.total_width

    @width.setter
    def width(self, value: float) -> None:
        """Drop what displaCy computes: it takes all words to be equally wide."""

    @staticmethod
    def _centres(words: Sequence[Word], arcs: Sequence[dict[str, Any]]) -> list[float]:
        """Return the x of each word's middle in px: no words overlap, and no arc is shorter than its label."""
        arriving: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for arc in arcs:
            arriving[arc["end"]].append(arc)
        centres: list[float] = []
        for i, word in enumerate(words):
            x = 24 + _width(word) / 2
            if i:
                x = centres[-1] + (_width(words[i - 1]) + _width(word)) / 2 + 10
            for arc in arriving[i]:
                x = max(x, centres[arc["start"]] + len(arc["label"]) * LABEL_CHAR_WIDTH + 48)
            centres.append(x)
        return centres

    def get_levels(self, arcs: list[dict[str, Any]]) -> dict[tuple[float, float, str], int]:
        """Return each arc's level, keyed as `render_arrow` will ask for it: short arcs below the arcs over them."""
        top = [0] * len(self.words)
        levels = {}
        for arc in sorted(arcs, key=lambda arc: (arc["end"] - arc["start"], arc["start"], arc["label"])):
            covered = slice(arc["start"], arc["end"])
            level = max(top[covered]) + 1
            top[covered] = [level] * (arc["end"] - arc["start"])
            levels[(self.slots[arc["start"]], self.slots[arc["end"]], arc["label"])] = level
        return levels

    def render_arrow(self, label: str, start: int, end: int, direction: str, i: int) -> str:
        """Draw one arc between the places of two words."""
        return str(super().render_arrow(label, self.slots[start], self.slots[end], direction, i))

    def render_word(self, text: str, tag: str, lemma: str | None, i: int) -> str:
        """Draw one word at its place, on its entity type's colour if it is a mention."""
        svg = str(super().render_word(text, tag, lemma, self.slots[i]))
        word = self.words[i]
        if not word.is_mention:
            return svg
        x = self.slots[i] * self.distance - _width(word) / 2
        color = self.colors.get(word.tag.upper(), self.default_color)
        y = self.offset_y + self.word_spacing - 19
        box = f'<rect x="{x:.1f}" y="{y}" width="{_width(word):.1f}" height="50" rx="6" fill="{color}"/>'
        return f'<g class="relx-mention" style="color: #111">{box}{svg}</g>'


def _width(word: Word) -> float:
    """Estimate the width in px that a word needs."""

    def letters(text: str) -> float:
        return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)

    if not word.is_mention:
        return letters(word.text) * CHAR_WIDTH
    return max(letters(word.text) * BOLD_CHAR_WIDTH, letters(word.tag) * 9) + 16
