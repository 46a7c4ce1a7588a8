"""Docs to export: an ordinary corpus, and one with everything that breaks files."""

import spacy
from hypothesis import strategies as st
from spacy.tokens import Doc, Span

NLP = spacy.blank("en")
NLP.add_pipe("sentencizer")

HOSTILE = (
    "=cmd()|' /C calc'!A0 \"quoted\", O'Neil`s \\u0027 <b>&amp;]]> ;|\t\x00\x07\r\n\u2028\x85東京 👩\u200d🔬 \ufffe"
)


def annotate(text, *relations, ids=None, name=None):
    """Make a Doc of (head, head type, label, tail, tail type, score); a mention is the first place of its text."""
    doc = NLP(text)

    def mention(value, label):
        start = text.index(value)
        span = doc.char_span(start, start + len(value), alignment_mode="expand")
        return Span(doc, span.start, span.end, label, kb_id=(ids or {}).get(value, ""))

    found = {key: mention(*key) for r in relations for key in (r[:2], r[3:5])}
    doc.ents = list(found.values())
    doc._.relations = [(found[r[:2]], r[2], found[r[3:5]], r[5]) for r in relations]
    if name is not None:
        doc.user_data["id"] = name
    return doc


def corpus():
    warsaw = {"Warsaw": "Q270"}
    return [
        annotate(
            "It rained. Marie Curie was born in Warsaw.",
            ("Marie Curie", "PERSON", "born_in", "Warsaw", "GPE", 0.5),
            ids=warsaw,
            name="first",
        ),
        annotate(
            "MARIE CURIE, born in Warsaw. She studied in Paris.",
            ("MARIE CURIE", "PERSON", "born_in", "Warsaw", "GPE", 0.75),
            ("MARIE CURIE", "PERSON", "studied in", "Paris", "GPE", 0.25),
            ids=warsaw,
        ),
    ]


def hostile():
    """A Doc whose mentions, types, labels, text and id are all hostile."""
    doc = Doc(NLP.vocab, words=[HOSTILE, "met", f"{HOSTILE}2", "."])
    doc[0].is_sent_start = True
    doc.ents = [Span(doc, 0, 1, HOSTILE, kb_id=HOSTILE), Span(doc, 2, 3, "a|b;c`d\\u0060")]
    doc._.relations = [
        (doc.ents[0], HOSTILE, doc.ents[1], 1.0),
        (doc.ents[1], "`]->() DETACH DELETE n //", doc.ents[0]),
    ]
    doc.user_data["id"] = f"../{HOSTILE}"
    return doc


words = st.text(
    st.one_of(st.sampled_from(list(HOSTILE)), st.characters(codec="utf-8", exclude_categories=["Cs"])),
    min_size=1,
    max_size=8,
)


@st.composite
def docs(draw):
    """Docs of any words with relations between any of them."""
    doc = Doc(NLP.vocab, words=draw(st.lists(words, min_size=2, max_size=6)))
    pairs = st.tuples(st.integers(0, len(doc) - 1), st.integers(0, len(doc) - 1)).filter(
        lambda pair: pair[0] != pair[1]
    )
    drawn = draw(st.lists(st.tuples(pairs, words, st.floats(0, 1)), max_size=4))
    doc._.relations = [((a, a + 1), label, (b, b + 1), score) for (a, b), label, score in drawn]
    return doc
