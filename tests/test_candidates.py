"""Candidate pairs and the text around them, against the slow obvious enumeration."""

from __future__ import annotations

import warnings
from collections import defaultdict
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, Span
from spacy.util import registry
from spacy.vocab import Vocab

from spacy_relx.candidates import GAP, EntityPairs, _Sentences, context_text, make_entity_pairs
from spacy_relx.errors import ConfigError, RelxWarning

if TYPE_CHECKING:
    from collections.abc import Callable

    from spacy_relx.candidates import Context

VOCAB = Vocab()
Place = tuple[int, int, str]


def make_doc(n_tokens: int, mentions: list[Place], starts: tuple[int, ...] = (0,), *, key: str | None = None) -> Doc:
    """A Doc of numbered words; `starts` are the first tokens of its sentences, none for no boundaries."""
    boundaries = [i in starts for i in range(n_tokens)] if starts else None
    doc = Doc(VOCAB, [f"w{i}" for i in range(n_tokens)], sent_starts=boundaries)
    spans = [Span(doc, *place[:2], label=place[2]) for place in mentions]
    if key is None:
        doc.ents = spans
    else:
        doc.spans[key] = spans
    return doc


def places(pairs: list[tuple[Span, Span]]) -> list[tuple[Place, Place]]:
    return [tuple((m.start, m.end, m.label_) for m in pair) for pair in pairs]  # type: ignore[misc]


def starts_of(pairs: list[tuple[Span, Span]]) -> list[tuple[int, int]]:
    return [(head.start, tail.start) for head, tail in pairs]


THREE = [(0, 2, "ORG"), (3, 4, "PERSON"), (6, 7, "ORG"), (9, 10, "GPE")]
SENTENCES = (0, 5)

# Scopes


def test_sentence_scope_in_head_major_text_order() -> None:
    doc = make_doc(12, THREE, SENTENCES)
    assert starts_of(EntityPairs()(doc)) == [(0, 3), (3, 0), (6, 9), (9, 6)]


def test_doc_scope() -> None:
    doc = make_doc(12, THREE, SENTENCES)
    expected = [(a, b) for a in (0, 3, 6, 9) for b in (0, 3, 6, 9) if a != b]
    assert starts_of(EntityPairs(scope="doc")(doc)) == expected


def test_window_scope_ignores_sentences_and_counts_the_tokens_between() -> None:
    doc = make_doc(12, THREE, SENTENCES)
    assert starts_of(EntityPairs(scope="window", window=2)(doc)) == [(0, 3), (3, 0), (3, 6), (6, 3), (6, 9), (9, 6)]
    assert starts_of(EntityPairs(scope="window", max_distance=1)(doc)) == [(0, 3), (3, 0)]


def test_max_distance() -> None:
    doc = make_doc(12, THREE, SENTENCES)
    assert starts_of(EntityPairs(max_distance=1)(doc)) == [(0, 3), (3, 0)]
    assert EntityPairs(max_distance=0)(doc) == []
    assert starts_of(EntityPairs(max_distance=0)(make_doc(4, [(0, 2, "A"), (2, 4, "A")]))) == [(0, 2), (2, 0)]


def test_text_order_only() -> None:
    doc = make_doc(12, THREE, SENTENCES)
    assert starts_of(EntityPairs(scope="doc", directed=False)(doc)) == [(0, 3), (0, 6), (0, 9), (3, 6), (3, 9), (6, 9)]


def test_few_mentions() -> None:
    for mentions in ([], [(1, 2, "ORG")]):
        assert EntityPairs()(make_doc(4, mentions)) == []
    assert EntityPairs()(Doc(VOCAB)) == []


def test_a_mention_over_a_sentence_boundary_belongs_to_the_sentence_it_begins_in() -> None:
    doc = make_doc(10, [(1, 2, "A"), (4, 6, "A"), (8, 9, "A")], SENTENCES)
    pairs = EntityPairs()(doc)
    assert starts_of(pairs) == [(1, 4), (4, 1)]
    assert EntityPairs().context(doc, *pairs[0]) == ((0, 10),)  # both sentences, so that the mention is whole


def test_no_sentence_boundaries_is_one_scope_and_one_warning() -> None:
    doc = make_doc(12, THREE, ())
    enumerate_pairs = EntityPairs()
    with pytest.warns(RelxWarning, match=r"no sentence boundaries.*sentencizer.*given once"):
        pairs = enumerate_pairs(doc)
    assert pairs == EntityPairs(scope="doc")(doc)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert enumerate_pairs(doc) == pairs
        assert enumerate_pairs.context(doc, *pairs[0]) == ((0, 12),)
        assert EntityPairs()(make_doc(1, [(0, 1, "A")], ())) == []


# Span groups


def test_a_span_group_may_nest_and_overlap() -> None:
    mentions = [(2, 4, "ORG"), (0, 3, "PERSON"), (2, 3, "GPE"), (2, 4, "GPE")]
    doc = make_doc(6, mentions, key="mentions")
    pairs = places(EntityPairs(spans_key="mentions")(doc))
    by_place = sorted(mentions)
    assert pairs == [(a, b) for a in by_place for b in by_place if a[:2] != b[:2]]
    assert EntityPairs(spans_key="mentions", max_distance=0)(doc)  # overlapping mentions have nothing between them


def test_a_missing_or_empty_span_group_has_no_pairs() -> None:
    doc = make_doc(12, THREE)
    assert EntityPairs(spans_key="mentions")(doc) == []
    doc.spans["mentions"] = []
    assert EntityPairs(spans_key="mentions")(doc) == []


def test_blank_mentions_are_left_out() -> None:
    doc = Doc(VOCAB, ["a", " ", "b"], sent_starts=[True, False, False])
    doc.spans["m"] = [Span(doc, i, i + 1, label="X") for i in range(3)]
    assert starts_of(EntityPairs(spans_key="m")(doc)) == [(0, 2), (2, 0)]


# Types


def test_types_are_asked_about_before_any_pair_is_made() -> None:
    asked: list[tuple[str, str]] = []

    def allows(head: str, tail: str) -> tuple[int, ...]:
        asked.append((head, tail))
        return (0,) if (head, tail) == ("ORG", "PERSON") else ()

    mentions = [(i, i + 1, "ORG" if i % 2 else "PERSON") for i in range(40)]
    pairs = places(EntityPairs(max_pairs=400)(make_doc(40, mentions), allows))
    assert len(pairs) == 400
    assert {(head[2], tail[2]) for head, tail in pairs} == {("ORG", "PERSON")}
    assert len(asked) == 4  # once for each pair of types, however many mentions there are


def test_nothing_allowed_is_no_pairs() -> None:
    assert EntityPairs()(make_doc(12, THREE), lambda head, tail: ()) == []


# Limits


def test_over_the_limit_the_nearest_are_kept_in_order_and_the_warning_counts() -> None:
    doc = make_doc(12, THREE)
    message = r"12 candidate pairs; the 4 nearest are asked about and 8 are not.*max_pairs.*max_distance.*types"
    with pytest.warns(RelxWarning, match=message):
        pairs = EntityPairs(max_pairs=4)(doc)
    assert starts_of(pairs) == [(0, 3), (3, 0), (3, 6), (6, 3)]  # 1, 1, 2, 2 tokens apart; so is (6, 9), which is later
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(EntityPairs(max_pairs=12)(doc)) == 12


def test_two_thousand_mentions_in_one_sentence() -> None:
    doc = make_doc(2000, [(i, i + 1, "X") for i in range(2000)])
    with pytest.warns(
        RelxWarning, match=r"has 3998000 candidate pairs; the 100 nearest are asked about and 3997900 are"
    ):
        pairs = EntityPairs(max_pairs=100)(doc)
    assert len(pairs) == 100
    assert starts_of(pairs)[:4] == [(0, 1), (1, 0), (1, 2), (2, 1)]
    assert len(EntityPairs(max_distance=1)(doc)) == 2 * 1999 + 2 * 1998


def test_a_pair_explosion_is_counted_without_looking_at_each_pair() -> None:
    """Twenty thousand mentions without sentence boundaries have 400 million pairs, of which a thousand are wanted."""
    looked: list[int] = []

    class Counting(EntityPairs):
        def _pairs(self, *args: Any) -> Any:
            for pair in super()._pairs(*args):
                looked.append(1)
                yield pair

    doc = make_doc(200_000, [(i, i + 1, "XY"[i % 3 == 0]) for i in range(0, 200_000, 10)])
    with pytest.warns(RelxWarning, match=r"has 399980000 candidate pairs; the 1000 nearest"):
        pairs = Counting("doc", max_pairs=1000)(doc)
    assert starts_of(pairs)[:3] == [(0, 10), (10, 0), (10, 20)]
    assert len(looked) < 100_000
    far = make_doc(1000, [(i, i + 1, "X") for i in range(0, 1000, 100)])  # nobody is near anybody
    with pytest.warns(RelxWarning, match="has 90 candidate pairs; the 20 nearest"):
        assert len(EntityPairs("doc", max_pairs=20)(far)) == 20


def test_a_distance_limit_looks_at_near_mentions_only() -> None:
    looked: list[int] = []

    class Counting(EntityPairs):
        def _groups(self, doc: Doc) -> Any:
            for group in super()._groups(doc):
                looked.append(len(group))
                yield group

    doc = make_doc(4000, [(i, i + 1, "X") for i in range(0, 4000, 4)])
    assert len(Counting(max_distance=3, directed=False)(doc)) == 999
    assert looked == [1000]


# Against brute force


@st.composite
def documents(draw: st.DrawFn) -> Doc:
    n_tokens = draw(st.integers(1, 14))
    starts = tuple(sorted({0} | draw(st.sets(st.integers(0, n_tokens - 1), max_size=4))))
    found: dict[tuple[int, int, str], None] = {}
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, n_tokens - 1))
        found[start, draw(st.integers(start + 1, min(n_tokens, start + 4))), draw(st.sampled_from("AB"))] = None
    return make_doc(n_tokens, list(found), starts, key="m")


def obvious_pairs(
    doc: Doc, scope: str, max_distance: int | None, window: int, directed: bool, allowed: set[tuple[str, str]]
) -> list[tuple[Place, Place]]:
    mentions = sorted((s.start, s.end, s.label_) for s in doc.spans["m"])
    pairs = []
    for (i, head), (j, tail) in product(enumerate(mentions), enumerate(mentions)):
        between = max(0, tail[0] - head[1], head[0] - tail[1])
        limit = window if scope == "window" and max_distance is None else max_distance
        if (
            i != j
            and head[:2] != tail[:2]
            and (head[2], tail[2]) in allowed
            and (directed or i < j)
            and (limit is None or between <= limit)
            and (scope != "sentence" or doc[head[0]].sent.start == doc[tail[0]].sent.start)
        ):
            pairs.append((head, tail))
    return pairs


@settings(max_examples=200, deadline=None)
@given(
    doc=documents(),
    scope=st.sampled_from(["sentence", "window", "doc"]),
    max_distance=st.none() | st.integers(0, 5),
    window=st.integers(1, 5),
    directed=st.booleans(),
    allowed=st.sets(st.sampled_from([("A", "A"), ("A", "B"), ("B", "A"), ("B", "B")])),
    max_pairs=st.integers(1, 12),
)
def test_pairs_are_those_of_brute_force(
    doc: Doc,
    scope: Any,
    max_distance: int | None,
    window: int,
    directed: bool,
    allowed: set[tuple[str, str]],
    max_pairs: int,
) -> None:
    expected = obvious_pairs(doc, scope, max_distance, window, directed, allowed)
    config = {"max_distance": max_distance, "window": window, "directed": directed, "spans_key": "m"}
    all_pairs = EntityPairs(scope, **config)(doc, lambda *types: types in allowed)  # type: ignore[arg-type]
    assert places(all_pairs) == expected
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        some = places(EntityPairs(scope, max_pairs=max_pairs, **config)(doc, lambda *types: types in allowed))  # type: ignore[arg-type]
    assert len(caught) == (len(expected) > max_pairs)
    distance = [max(0, tail[0] - head[1], head[0] - tail[1]) for head, tail in expected]
    kept = sorted(sorted(range(len(expected)), key=lambda i: (distance[i], i))[:max_pairs])
    assert some == [expected[i] for i in kept]


@settings(max_examples=200, deadline=None)
@given(doc=documents(), scope=st.sampled_from(["sentence", "window", "doc"]), window=st.integers(1, 4))
def test_a_context_holds_both_mentions_and_stays_in_scope(doc: Doc, scope: Any, window: int) -> None:
    candidates = EntityPairs(scope, window=window, spans_key="m")
    for head, tail in candidates(doc):
        ranges = candidates.context(doc, head, tail)
        assert ranges == candidates.context(doc, tail, head)
        assert 1 <= len(ranges) <= 2
        for mention in (head, tail):
            assert any(start <= mention.start and mention.end <= stop for start, stop in ranges)
        low, high = 0, len(doc)
        if scope == "sentence":
            ends = (head.start, tail.start, head.end - 1, tail.end - 1)
            low, high = min(doc[i].sent.start for i in ends), max(doc[i].sent.end for i in ends)
        flat = [place for pair in ranges for place in pair]
        assert flat == sorted(flat)
        assert low <= flat[0]
        assert flat[-1] <= high


# Contexts


def test_a_short_scope_is_kept_whole() -> None:
    doc = make_doc(20, THREE, (0, 5, 12))
    assert EntityPairs().context(doc, doc.ents[2], doc.ents[3]) == ((5, 12),)
    assert EntityPairs(scope="doc").context(doc, doc.ents[0], doc.ents[3]) == ((0, 20),)
    assert EntityPairs(scope="window").context(doc, doc.ents[2], doc.ents[3]) == ((0, 20),)


@pytest.mark.parametrize("scope", ["sentence", "window", "doc"])
def test_in_a_long_scope_neighbouring_pairs_read_the_same_text(scope: Any) -> None:
    mentions = [(i, i + 1, "X") for i in range(500, 600, 5)]
    doc = make_doc(1000, mentions)
    candidates = EntityPairs(scope, window=32, max_distance=10)
    contexts = defaultdict(int)
    for head, tail in candidates(doc):
        ((start, stop),) = candidates.context(doc, head, tail)
        first, last = min(head.start, tail.start), max(head.end, tail.end)
        assert start <= first - 32
        assert last + 32 <= stop
        assert stop - start <= last - first + 2 * 32 + 2 * 16  # rounded outwards to a grid of half a window
        contexts[start, stop] += 1
    assert len(contexts) <= 2 * 100 / 16 + 2
    assert sum(contexts.values()) == 2 * (19 + 18)


def test_far_apart_mentions_are_read_in_two_snippets() -> None:
    doc = make_doc(1000, [(100, 102, "X"), (800, 801, "X")])
    candidates = EntityPairs(window=8)
    (a, b), (c, d) = ranges = candidates.context(doc, doc.ents[1], doc.ents[0])
    assert a <= 96 < 106 <= b < 130
    assert 770 < c <= 796 < 805 <= d
    text = context_text(doc, ranges)
    assert text == f"{doc[a:b].text}{GAP}{doc[c:d].text}"
    assert "w100 w101" in text
    assert "w800" in text


def test_snippets_that_meet_are_one() -> None:
    doc = make_doc(100, [(20, 50, "X"), (52, 53, "X")])
    assert EntityPairs(window=8).context(doc, doc.ents[0], doc.ents[1]) == ((16, 58),)


def test_a_mention_longer_than_the_window_is_whole() -> None:
    doc = make_doc(100, [(10, 60, "X"), (90, 91, "X")])
    (a, b), _ = EntityPairs(window=4).context(doc, doc.ents[0], doc.ents[1])
    assert a <= 10
    assert b >= 60


# Settings


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"scope": "paragraph"}, "candidates.scope is 'paragraph'. Expected one of sentence, window, doc"),
        ({"max_distance": -1}, "candidates.max_distance is -1. Expected a whole number of at least 0"),
        ({"max_distance": True}, "candidates.max_distance is True"),
        ({"window": 0}, "candidates.window is 0"),
        ({"window": None}, "candidates.window is None"),
        ({"max_pairs": 1.5}, "candidates.max_pairs is 1.5"),
        ({"directed": "yes"}, "candidates.directed is 'yes'. Expected true or false"),
        ({"spans_key": ""}, "candidates.spans_key is ''"),
        ({"spans_key": 3}, "candidates.spans_key is 3"),
        ({"scope": ["doc"]}, "candidates.scope is"),
    ],
)
def test_settings_that_cannot_be_used(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_entity_pairs(**config)


def test_defaults_are_the_published_ones() -> None:
    expected = {
        "scope": "sentence",
        "max_distance": None,
        "window": 128,
        "directed": True,
        "max_pairs": 10_000,
        "spans_key": None,
    }
    assert make_entity_pairs().to_dict() == expected
    assert registry.misc.get("spacy-relx.EntityPairs.v1")() == make_entity_pairs()


# A function of the user's own


def first_and_last(doc: Doc) -> list[tuple[Span, Span]]:
    return [(doc.ents[0], doc.ents[-1])] if len(doc.ents) > 1 else []


@registry.misc("relx_test_first_and_last.v1")
def make_first_and_last() -> Callable[[Doc], list[tuple[Span, Span]]]:
    return first_and_last


def test_a_users_function_gives_the_pairs() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    config = {
        "labels": {"knows": {"head": ["X"]}, "sees": None},
        "candidates": {"@misc": "relx_test_first_and_last.v1"},
    }
    pipe = nlp.add_pipe("llama_relation_extractor", config=config)
    doc = make_doc(12, [(0, 1, "X"), (3, 4, "X"), (6, 7, "Y")])
    (pair,) = pipe._pairs(doc)
    assert (pair.head.start, pair.tail.start) == (0, 6)
    assert pair.context == ((0, 12),)
    assert pair.allowed == (0, 1, 2)  # both labels and the negative
    with pytest.raises(ConfigError, match=r"candidates is 3\. Expected a block such as"):
        spacy.blank("en").add_pipe("llama_relation_extractor", config={"candidates": 3})


# Many pairs of one document


@pytest.mark.parametrize("scope", ["sentence", "window", "doc"])
@pytest.mark.parametrize("window", [1, 3, 128])
@pytest.mark.parametrize("starts", [(0,), (0, 5), (0, 1, 4, 7), ()])
@pytest.mark.filterwarnings("ignore:A Doc has no sentence boundaries")
def test_contexts_of_many_pairs_are_those_of_each(scope: Any, window: int, starts: tuple[int, ...]) -> None:
    doc = make_doc(12, THREE, starts)
    enumerate_pairs = EntityPairs(scope=scope, window=window, max_distance=None)
    pairs = list(product(doc.ents, doc.ents))  # those of two sentences among them
    contexts = enumerate_pairs.contexts(doc, pairs)
    assert contexts == [enumerate_pairs.context(doc, head, tail) for head, tail in pairs]
    if scope == "sentence" and starts and window == 128:
        bounds = [
            (doc[h.start].sent.start, t[-1].sent.end) for h, t in (sorted(p, key=lambda s: s.start) for p in pairs)
        ]
        assert contexts == [(place,) for place in bounds]
    assert enumerate_pairs.contexts(doc, []) == []


def test_a_sentence_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[int] = []
    look_up = _Sentences.__missing__
    monkeypatch.setattr(_Sentences, "__missing__", lambda self, token: looked_up.append(token) or look_up(self, token))
    doc = make_doc(40, [(i, i + 1, "ORG") for i in range(0, 16, 2)], (0, 20))
    pairs = EntityPairs()(doc)
    EntityPairs().contexts(doc, pairs)
    assert len(pairs) == 56
    assert len(looked_up) == 2  # for the pairs, and for their contexts


def test_a_subclass_may_have_contexts_of_its_own() -> None:
    class Whole(EntityPairs):
        def context(self, doc: Doc, head: Span, tail: Span) -> Context:
            return ((0, len(doc)),)

    doc = make_doc(12, THREE, SENTENCES)
    pairs = Whole()(doc)
    assert Whole().contexts(doc, pairs) == [((0, 12),)] * len(pairs)
