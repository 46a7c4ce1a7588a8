"""Prints what the packaged adapter finds in ten real texts, for a person to read: how the card's ten texts were chosen.

    python scripts/read_texts.py test_revised.json conll04_test.json test_triples.json scierc_test.txt

Five Wikipedia articles of Re-DocRED drawn at random, two runs of CoNLL04's news sentences, two of NYT's, and sentences
of SciERC's abstracts. The files are those of the public data sets; no text lies in this repository. An entity
recogniser has to be installed. Which relations the text supports, the reader says.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import Annotated, Any

import spacy
import typer

from spacy_relx.cli._pipeline import entity_pipeline


def main(
    redocred: Annotated[Path, typer.Argument(help="test_revised.json")],
    conll04: Annotated[Path, typer.Argument(help="conll04_test.json")],
    nyt: Annotated[Path, typer.Argument(help="test_triples.json")],
    scierc: Annotated[Path, typer.Argument(help="test.txt")],
) -> None:
    """Print every text with its relations at the default threshold."""
    nlp = spacy.load(entity_pipeline())
    nlp.add_pipe("llama_relation_extractor")
    n_relations = 0
    for name, text in _texts(redocred, conll04, nyt, scierc):
        doc = nlp(text)
        print(f"\n## {name}\n\n{text}\n")
        for rel in sorted(doc._.relations, key=lambda rel: -rel.score):
            print(f"    {rel.head.text} | {rel.label} | {rel.tail.text}  {rel.score:.2f}")
            n_relations += 1
    print(f"\n{n_relations} relations")


def _texts(redocred: Path, conll04: Path, nyt: Path, scierc: Path) -> list[tuple[str, str]]:
    articles = _json(redocred)
    chosen = random.Random(5).sample(range(len(articles)), 5)
    texts = [(articles[i]["title"], _joined(*articles[i]["sents"])) for i in chosen]
    news = _json(conll04)
    texts += [("news", _joined(*(sentence["tokens"] for sentence in news[i : i + 4]))) for i in (30, 120)]
    times = list(dict.fromkeys(row["text"] for row in _json(nyt)[100:]))
    texts += [("newspaper", _joined(*(text.split() for text in times[i : i + 5]))) for i in (0, 500)]
    rows = map(json.loads, scierc.read_text(encoding="utf-8").splitlines())
    sentences = list(dict.fromkeys(re.sub(r"\[\[ | \]\]|<< | >>|-LRB-.*?-RRB-", "", row["text"]) for row in rows))
    return [*texts, ("abstracts", _joined(*(sentence.split() for sentence in sentences[20:25])))]


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _joined(*sentences: list[str]) -> str:
    """Tokens as text: spaces before punctuation are left out."""
    text = " ".join(token for sentence in sentences for token in sentence)
    return re.sub(r" ([,.;:?!)']|'s\b)|(?<=\() ", lambda match: match[1] or "", text)


if __name__ == "__main__":
    typer.run(main)
