"""What the packed engine is compared with, each in a file of its own.

A rival's file has `ABOUT` (one line for readers), `REQUIREMENTS` (what pip installs into an environment of its own;
empty for this one) and `prepare(task) -> Rival`. At import it needs the standard library alone, for it is read from
environments that have nothing else in common. `task` is what `task.py` makes; a `Rival` has `run()`, `n_units`, `unit`
("pairs" or "documents") and `facts`.
"""

from pathlib import Path

FOLDER = Path(__file__).parent

#: The rivals that run in a process of their own, by the name they have on the command line.
REMOTE = {
    "spacy-llm": FOLDER / "spacy_llm_rel.py",
    "llama.cpp": FOLDER / "llama_cpp_grammar.py",
    "glirel": FOLDER / "glirel_backbone.py",
    "vllm": FOLDER / "vllm_prefix.py",
}
