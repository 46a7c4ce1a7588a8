"""From a company's report to a graph: labels of one's own, each with the types that it may join."""

from pathlib import Path

import spacy

from spacy_relx import view

TEXTS = Path(__file__).with_name("texts") / "business.txt"
LABELS = {
    "subsidiary_of": {"description": "The first company belongs to the second.", "head": ["ORG"], "tail": ["ORG"]},
    "acquired": {"description": "The first company bought the second.", "head": ["ORG"], "tail": ["ORG"]},
    "headquartered_in": {"description": "The company has its seat in the place.", "head": ["ORG"], "tail": ["GPE"]},
    "officer_of": {"description": "The person leads the company.", "head": ["PERSON"], "tail": ["ORG"]},
}

nlp = spacy.load("en_core_web_sm")
nlp.add_pipe("llama_relation_extractor", config={"labels": LABELS})
docs = list(nlp.pipe(TEXTS.read_text(encoding="utf8").split("\n\n")))

for doc in docs:
    for rel in doc._.relations:
        print(f"{rel.score:.2f}  {rel.head.text} | {rel.label} | {rel.tail.text}")
print(view.save_graph(docs, "business.html", title="Brightwater Energy"))
