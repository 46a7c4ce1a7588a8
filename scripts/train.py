"""Fine-tunes the embedded model on one benchmark with `configs/train_lora.cfg`, within an hour on two cores.

What differs between the benchmarks stands here: their files, their negative labels, and where the development documents
come from if there is no development split to spare. Test sets are not read.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import typer

from spacy_relx.training.curves import draw_spacy_run

ROOT = Path(__file__).resolve().parents[1]
FACTORY = "llama_relation_extractor"
#: What spaCy's logger writes in the output folder.
LOG = "log.jsonl"
_COMPONENT = f"components.{FACTORY}"


@dataclass(frozen=True)
class Recipe:
    """How one benchmark is trained on.

    Attributes:
        train: The training documents, in corpus/.
        dev: The development documents; where they are the training file's, its first 300 are kept for development.
        steps: Optimiser steps; the documents are scored halfway and at the end.
        docs: Documents of a step, of which more are needed the fewer pairs each has.
        overrides: Other settings of the config.
    """

    train: str
    dev: str
    steps: int
    docs: int
    overrides: dict[str, str] = field(default_factory=dict)

    def arguments(self, dataset: str, output: Path) -> list[str]:
        """The options of `spacy train`."""
        settings = {
            "paths.train": f"corpus/{self.train}",
            "paths.dev": f"corpus/{self.dev}",
            "paths.labels": str(ROOT / "spacy_relx" / "schemas" / f"{dataset}.json"),
            "paths.checkpoint": str(output / "checkpoint"),
            "paths.log": str(output / LOG),
            "training.max_steps": str(self.steps),
            "training.eval_frequency": str(self.steps // 2),
            "training.batcher.size": str(self.docs),
            **({"corpora.train.skip": "300", "corpora.dev.limit": "300"} if self.train == self.dev else {}),
            **self.overrides,
        }
        return [word for name, value in settings.items() for word in (f"--{name}", value)]


_OVERLAPPING = {f"{_COMPONENT}.candidates.spans_key": "gold"}
_TEXT_ORDER = {f"{_COMPONENT}.candidates.directed": "false"}

RECIPES = {
    "conll04": Recipe("conll04.train.spacy", "conll04.dev.spacy", 500, 8),
    "gids": Recipe("gids.dev.spacy", "gids.dev.spacy", 800, 4, {**_OVERLAPPING, f"{_COMPONENT}.no_relation": "NA"}),
    "nyt11": Recipe("nyt11.dev.spacy", "nyt11.dev.spacy", 480, 8, _OVERLAPPING),
    "kbp37": Recipe("kbp37.train.spacy", "kbp37.dev.spacy", 320, 16, _TEXT_ORDER),
    "semeval2010_task8": Recipe(
        "semeval2010_task8.dev.spacy",
        "semeval2010_task8.dev.spacy",
        200,
        16,
        # The packaged adapter has learned from all but the last 480 documents: only these can tell what is best.
        {
            f"{_COMPONENT}.no_relation": "Other",
            **_TEXT_ORDER,
            "corpora.train.skip": "0",
            "corpora.train.limit": "7520",
            "corpora.dev.skip": "7520",
        },
    ),
}


def main(
    dataset: Annotated[str, typer.Argument(help=", ".join(RECIPES))],
    output: Annotated[Path, typer.Option(help="Where spaCy writes model-best and model-last.")],
    config: Annotated[Path, typer.Option(help="The config.")] = ROOT / "configs" / "train_lora.cfg",
    steps: Annotated[int, typer.Option(min=0, help="Optimiser steps, an even number; 0: as the recipe says.")] = 0,
) -> None:
    """Train, and draw the losses and scores; the same command goes on after a kill."""
    if dataset not in RECIPES:
        sys.exit(f"There is no recipe for {dataset!r}. Expected one of: {', '.join(RECIPES)}.")
    if steps % 2:
        sys.exit(f"{steps} steps. Expected an even number: the documents are scored halfway and after the last one.")
    recipe = RECIPES[dataset]
    if steps:
        recipe = replace(recipe, steps=steps)
    command = [sys.executable, "-m", "spacy", "train", str(config), "--output", str(output)]
    # A run that goes on tells all from the start, but spaCy's logger writes to no file that is there.
    (output / LOG).unlink(missing_ok=True)
    done = subprocess.run([*command, *recipe.arguments(dataset, output)], check=False)
    if done.returncode == 0 and (curves := draw_spacy_run(output / LOG, FACTORY)) is not None:
        print(f"Losses and scores: {curves}")
    sys.exit(done.returncode)


if __name__ == "__main__":
    typer.run(main)
