"""Which pairs of mentions are asked about, in which order, and how much text around each the model reads."""

from __future__ import annotations

import heapq
import warnings
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from spacy_relx.errors import ConfigError, RelxWarning

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span

Scope = Literal["sentence", "window", "doc"]
#: Half-open token ranges of a Doc, in order.
Context: TypeAlias = tuple[tuple[int, int], ...]
Allows: TypeAlias = Callable[[str, str], object]

#: What stands in a prompt for the text between two ranges of a context.
GAP = " … "


@dataclass(frozen=True)
class EntityPairs:
    """Enumerates ordered (head, tail) pairs of a Doc's mentions, head by head, so that prompts share their beginnings.

    Attributes:
        scope: Where both mentions must lie: in one "sentence", within `max_distance` tokens of each other ("window";
            `window` tokens if no distance is given), or anywhere in the "doc".
        max_distance: Most tokens between the two mentions, or None.
        window: Tokens of context kept on each side of a pair. A scope of at most twice as many tokens is kept whole.
        directed: Whether both orders of a pair are asked about; otherwise the mention that comes first is the head.
        max_pairs: Most pairs of one Doc. Where there are more, the nearest are kept and a warning says how many.
        spans_key: Name of the span group whose spans are the mentions, or None for `doc.ents`.
    """

    scope: Scope = "sentence"
    max_distance: int | None = None
    window: int = 128
    directed: bool = True
    max_pairs: int = 10_000
    spans_key: str | None = None
    _warned: set[str] = field(default_factory=set, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.scope not in get_args(Scope):
            raise ConfigError(f"candidates.scope is {self.scope!r}. Expected one of {', '.join(get_args(Scope))}.")
        for name, least in (("window", 1), ("max_pairs", 1), ("max_distance", 0)):
            value = getattr(self, name)
            if value is None and name == "max_distance":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"candidates.{name} is {value!r}. Expected a whole number of at least {least}.")
        if not isinstance(self.directed, bool):
            raise ConfigError(f"candidates.directed is {self.directed!r}. Expected true or false.")
        if self.spans_key is not None and (not isinstance(self.spans_key, str) or not self.spans_key):
            raise ConfigError(
                f"candidates.spans_key is {self.spans_key!r}. Expected the name of a span group, or null."
            )

    def __call__(self, doc: Doc, allows: Allows | None = None) -> list[tuple[Span, Span]]:
        """List the pairs of a Doc.

        Args:
            doc: The Doc.
            allows: Tells for (head type, tail type) whether any label takes them; pairs it denies are never made.
        """
        groups = [_Mentions(mentions, allows) for mentions in self._groups(doc)]
        limit = self.window if self.scope == "window" and self.max_distance is None else self.max_distance
        total = 0
        if limit is None:
            # Thousands of mentions have millions of pairs, so they are counted without looking at each.
            total = sum(mentions.count(self.directed) for mentions in groups)
            if total > self.max_pairs:
                limit = self._reach(groups)
        nearest: list[tuple[int, int, Span, Span]] = []
        n_pairs = 0
        for distance, head, tail in self._pairs(groups, limit):
            item = (-distance, -n_pairs, head, tail)
            n_pairs += 1
            if n_pairs <= self.max_pairs:
                nearest.append(item)
                continue
            # All are counted but no more than max_pairs kept: a heap with the farthest on top, the latest on a tie.
            if n_pairs == self.max_pairs + 1:
                heapq.heapify(nearest)
            heapq.heappushpop(nearest, item)
        n_pairs = max(n_pairs, total)
        if n_pairs > self.max_pairs:
            nearest.sort(key=lambda item: -item[1])
            warnings.warn(
                f"A Doc has {n_pairs} candidate pairs; the {self.max_pairs} nearest are asked about and "
                f"{n_pairs - self.max_pairs} are not. Raise candidates.max_pairs, lower candidates.max_distance, or "
                "give the labels head and tail types.",
                RelxWarning,
                stacklevel=2,
            )
        return [(head, tail) for _, _, head, tail in nearest]

    def context(self, doc: Doc, head: Span, tail: Span) -> Context:
        """Token ranges that the model reads for a pair; pairs of one scope share them where the scope is short."""
        return self._context(self._sentences(doc), head, tail)

    def contexts(self, doc: Doc, pairs: Sequence[tuple[Span, Span]]) -> list[Context]:
        """The contexts of many pairs of one Doc; each of its sentences is looked up once."""
        if not pairs or type(self).context is not EntityPairs.context:  # overridden by a subclass
            return [self.context(doc, head, tail) for head, tail in pairs]
        sentences = self._sentences(doc)
        return [self._context(sentences, head, tail) for head, tail in pairs]

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return {name: value for name, value in asdict(self).items() if not name.startswith("_")}

    def _context(self, sentences: _Sentences, head: Span, tail: Span) -> Context:
        first, last = min(head.start, tail.start), max(head.end, tail.end)
        # A mention may reach into the next sentence.
        start, stop = sentences[first][0], sentences[last - 1][1]
        if stop - start <= 2 * self.window:
            return ((start, stop),)
        if last - first <= 2 * self.window:
            return (self._around(first, last, start, stop, self.window),)
        a, b = sorted(
            self._around(mention.start, mention.end, start, stop, self.window // 2) for mention in (head, tail)
        )
        return ((a[0], max(a[1], b[1])),) if a[1] >= b[0] else (a, b)

    def _reach(self, groups: Sequence[_Mentions]) -> int:
        """A distance within which there are as many pairs as may be asked about."""
        reach = 16
        while sum(1 for _ in islice(self._pairs(groups, reach), self.max_pairs)) < self.max_pairs:
            reach *= 2
        return reach

    def _pairs(self, groups: Sequence[_Mentions], limit: int | None) -> Iterator[tuple[int, Span, Span]]:
        """Every pair with the tokens between its mentions, at most `limit` of them."""
        for group in groups:
            places, allowed = group.places, group.allowed
            for i, (start, end, head_type) in enumerate(places):
                first = 0 if self.directed else i + 1
                if limit is not None:
                    # Mentions are sorted by start, so those before this place are too far away.
                    first = max(first, bisect_left(group.starts, start - limit - group.longest))
                for j in range(first, len(places)):
                    tail_start, tail_end, tail_type = places[j]
                    if limit is not None and j > i and tail_start - end > limit:
                        break  # and so are all that follow
                    if not allowed[head_type, tail_type] or (start == tail_start and end == tail_end):
                        continue
                    distance = max(0, tail_start - end, start - tail_end)
                    if limit is None or distance <= limit:
                        yield distance, group.mentions[i], group.mentions[j]

    def _groups(self, doc: Doc) -> Iterable[list[Span]]:
        """The mentions of each scope, in text order."""
        spans: Iterable[Span] = doc.ents
        if self.spans_key is not None:
            if self.spans_key not in doc.spans:
                return []
            spans = doc.spans[self.spans_key]
        mentions = sorted((s for s in spans if s.text.strip()), key=lambda s: (s.start, s.end, s.label_))
        sentences = self._sentences(doc)
        groups: dict[int, list[Span]] = {}
        for mention in mentions:
            groups.setdefault(sentences[mention.start][0], []).append(mention)
        return groups.values()

    def _sentences(self, doc: Doc) -> _Sentences:
        """The sentences of a Doc; one that is all of it, unless the scope is the sentence and the Doc has some."""
        return _Sentences(doc, whole=self.scope != "sentence" or not self._has_sentences(doc))

    def _around(self, first: int, last: int, start: int, stop: int, window: int) -> tuple[int, int]:
        # Rounded outwards to a grid, so that neighbouring pairs read the same text and share its computation.
        grid = max(1, window // 2)
        low = start + max(0, first - window - start) // grid * grid
        high = start + -(-(last + window - start) // grid) * grid
        return low, min(stop, high)

    def _has_sentences(self, doc: Doc) -> bool:
        if doc.has_annotation("SENT_START"):
            return True
        if len(doc) > 1 and "sentences" not in self._warned:
            self._warned.add("sentences")
            warnings.warn(
                "A Doc has no sentence boundaries, so it is taken as one sentence. Add `sentencizer`, `senter` or a "
                'parser before the relation extractor, or set candidates.scope to "window" or "doc". This warning is '
                "given once.",
                RelxWarning,
                stacklevel=2,
            )
        return False


class _Mentions:
    """The mentions of one scope, in text order, with what is asked of them for every pair.

    Args:
        mentions: The mentions, sorted by start and end.
        allows: Tells for (head type, tail type) whether any label takes them; None: all do.
    """

    def __init__(self, mentions: list[Span], allows: Allows | None) -> None:
        self.mentions = mentions
        self.places = [(mention.start, mention.end, mention.label_) for mention in mentions]
        self.starts = [start for start, _, _ in self.places]
        self.longest = max((end - start for start, end, _ in self.places), default=0)
        types = {place[2] for place in self.places}
        self.allowed = {(a, b): allows is None or bool(allows(a, b)) for a in types for b in types}

    def count(self, directed: bool) -> int:
        """How many pairs there are at any distance."""
        before: Counter[str] = Counter()
        same_place: Counter[str] = Counter()
        place = (-1, -1)
        n_pairs = 0
        for start, end, label in self.places:
            if (start, end) != place:
                place, same_place = (start, end), Counter()
            for other, n in before.items():
                n -= same_place[other]
                n_pairs += n * self.allowed[other, label] + (n * self.allowed[label, other] if directed else 0)
            before[label] += 1
            same_place[label] += 1
        return n_pairs


class _Sentences(dict[int, tuple[int, int]]):
    """Start and end of the sentence of each token, looked up once a sentence: spaCy searches for them every time."""

    def __init__(self, doc: Doc, *, whole: bool) -> None:
        super().__init__()
        self._doc = doc
        self._whole = whole

    def __missing__(self, token: int) -> tuple[int, int]:
        if self._whole:
            self[token] = 0, len(self._doc)
        else:
            sentence = self._doc[token].sent
            bounds = (sentence.start, sentence.end)
            self.update(dict.fromkeys(range(*bounds), bounds))
        return self[token]


def make_entity_pairs(
    scope: Any = "sentence",
    max_distance: Any = None,
    window: Any = 128,
    directed: Any = True,
    max_pairs: Any = 10_000,
    spans_key: Any = None,
) -> EntityPairs:
    """Create the pair enumerator `spacy-relx.EntityPairs.v1`; see `EntityPairs` for the settings.

    Raises:
        ConfigError: If a setting is not usable.
    """
    return EntityPairs(scope, max_distance, window, directed, max_pairs, spans_key)


def context_text(doc: Doc, context: Context) -> str:
    """The text of a context."""
    return GAP.join(doc[start:stop].text for start, stop in context)
