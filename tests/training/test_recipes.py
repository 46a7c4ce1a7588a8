"""The fine-tuning recipes: each is a run that spaCy would start, and one that ends with a score."""

from pathlib import Path

import pytest
from script_loader import load_script
from spacy.util import load_config

from spacy_relx.schema import make_schema
from spacy_relx.schema_config import did_you_mean

script = load_script("train")
COMPONENT = ("components", "llama_relation_extractor")


@pytest.fixture(params=sorted(script.RECIPES))
def dataset(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def overrides(dataset: str) -> dict[str, str]:
    words = script.RECIPES[dataset].arguments(dataset, Path("out"))
    return {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}


def test_settings_are_those_of_the_config(dataset: str) -> None:
    config = load_config(script.ROOT / "configs" / "train_lora.cfg")
    for name in overrides(dataset):
        section = config
        for part in name.split("."):
            assert part in section, f"{name}: {did_you_mean(part, section)}"
            section = section[part]


def test_the_last_step_is_scored(dataset: str) -> None:
    """spaCy keeps the best of what it scored: of a run whose last step is not, the start may remain."""
    settings = overrides(dataset)
    assert int(settings["training.max_steps"]) % int(settings["training.eval_frequency"]) == 0


def test_the_negative_is_that_of_the_data(dataset: str) -> None:
    schema = make_schema(name=dataset)
    assert overrides(dataset).get(".".join((*COMPONENT, "no_relation")), "no_relation") == (
        schema.no_relation or "no_relation"
    )


def test_development_documents_are_not_trained_on(dataset: str) -> None:
    settings = overrides(dataset)
    if settings["paths.train"] == settings["paths.dev"]:
        parts = []
        for corpus in ("train", "dev"):
            skip, limit = (int(settings.get(f"corpora.{corpus}.{name}", 0)) for name in ("skip", "limit"))
            parts.append(range(skip, skip + limit if limit else 10**9))
        train, dev = parts
        assert train.stop <= dev.start or dev.stop <= train.start
    assert "test" not in settings["paths.train"] + settings["paths.dev"]
