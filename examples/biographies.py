"""From biographies to a graph: facts of several texts in one picture, where a name is one node."""

from pathlib import Path

import spacy

from spacy_relx import view

TEXTS = Path(__file__).with_name("texts") / "biographies.txt"
LABELS = {
    "born_in": {"description": "The person was born in the place.", "head": ["PERSON"], "tail": ["GPE"]},
    "died_in": {"description": "The person died in the place.", "head": ["PERSON"], "tail": ["GPE"]},
    "educated_at": {"description": "The person studied at the school.", "head": ["PERSON"], "tail": ["ORG"]},
    "child_of": {"description": "The first is a child of the second.", "head": ["PERSON"], "tail": ["PERSON"]},
    "spouse": {"description": "The two are married.", "head": ["PERSON"], "tail": ["PERSON"], "symmetric": True},
}

nlp = spacy.load("en_core_web_sm")
nlp.add_pipe("llama_relation_extractor", config={"labels": LABELS})
docs = list(nlp.pipe(TEXTS.read_text(encoding="utf8").split("\n\n")))

for doc in docs:
    for rel in doc._.relations:
        print(f"{rel.score:.2f}  {rel.head.text} | {rel.label} | {rel.tail.text}")
print(view.save_graph(docs, "biographies.html", title="Lives of mathematicians", min_score=0.6))
