"""The complete configs: taken by spaCy's own commands, without a network and without weights, and true to the code."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.cli.init_config import fill_config
from spacy.language import Language
from spacy.util import load_config, load_model_from_config, registry

from spacy_relx.shim import engine_shim
from spacy_relx.training.settings import make_training

CONFIGS = Path(__file__).parents[1] / "configs"
READY = ("smollm2", "llama32_gentune", "served")
TRAINED = ("train_lora", "train_qlora_llama32")
NAMES = (*READY, *TRAINED)
FACTORY = "llama_relation_extractor"

#: The keys of the component and their documented defaults; for a block, what its name and arguments have to hold.
DOCUMENTED: dict[str, Any] = {
    "model": {"@architectures": "spacy-relx.SmolLM2.v1"},
    "labels": None,
    "candidates": {"@misc": "spacy-relx.EntityPairs.v1", "scope": "sentence"},
    "prompt": {"@misc": "spacy-relx.GenTunePrompt.v1"},
    "decoding": "constrained",
    "scoring": "trie",
    "threshold": None,
    "top_k": 1,
    "no_relation": "no_relation",
    "keep_no_relation": False,
    "attr": "relations",
    "scorer": {"@scorers": "spacy-relx.relation_scorer.v1"},
    "training": None,
}


def spacy_command(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run spaCy's command line where no cache has a model and no network answers."""
    nowhere = {"XDG_CACHE_HOME": str(home), "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    return subprocess.run(
        [sys.executable, "-m", "spacy", *arguments],
        env=os.environ | nowhere | proxies,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_these_are_all() -> None:
    assert {path.stem for path in CONFIGS.glob("*.cfg")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_debug_config_accepts_it(name: str, tmp_path: Path) -> None:
    done = spacy_command(tmp_path, "debug", "config", str(CONFIGS / f"{name}.cfg"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Config is valid" in done.stdout
    assert list(tmp_path.iterdir()) == []  # nothing was fetched


@pytest.mark.parametrize("name", NAMES)
def test_fill_config_has_nothing_to_add(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = CONFIGS / f"{name}.cfg"
    built: list[Any] = []
    monkeypatch.setattr("spacy_relx.shim.EngineShim.engine", property(built.append))
    fill_config(tmp_path / "filled.cfg", path)
    assert load_config(tmp_path / "filled.cfg") == load_config(path)
    assert built == []


@pytest.mark.parametrize("name", NAMES)
def test_every_documented_key_is_there(name: str) -> None:
    component = load_config(CONFIGS / f"{name}.cfg")["components"][FACTORY]
    assert set(component) == {"factory", *DOCUMENTED}
    for key, default in DOCUMENTED.items():
        if isinstance(default, dict):
            group, function = next(iter(default.items()))
            if name == "smollm2":
                assert default.items() <= component[key].items()
            written = set(component[key]) - {group}
            accepted = registry.get(group.removeprefix("@"), component[key][group])
            assert written == set(accepted.__code__.co_varnames[: accepted.__code__.co_argcount]), (key, function)
        elif name in TRAINED and key == "training":
            assert component[key]["@misc"] == "spacy-relx.Training.v1"
            assert set(component[key]) - {"@misc"} == set(inspect.signature(make_training).parameters)
        else:
            assert component[key] == default


def test_the_factorys_defaults_are_the_documented_ones() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe(FACTORY)  # the factory is registered by its first use
    assert Language.get_factory_meta(FACTORY).default_config == DOCUMENTED
    filled = dict(nlp.config["components"][FACTORY])
    complete = load_config(CONFIGS / "smollm2.cfg")["components"][FACTORY]
    assert {key: filled[key] for key in complete} == complete


def test_the_flagships_config_asks_as_the_model_card_does() -> None:
    component = load_config(CONFIGS / "llama32_gentune.cfg")["components"][FACTORY]
    assert component["model"]["@architectures"] == "spacy-relx.Llama32GenTune.v1"
    assert component["model"]["quantization"] == "nf4"
    assert component["prompt"]["system"] == "generic"
    assert component["prompt"]["cue"] == "Relation:"
    assert component["prompt"]["template_kwargs"] == {"date_string": "26 Jul 2024"}


def test_the_served_config_asks_as_the_flagships_does() -> None:
    served, flagship = (load_config(CONFIGS / f"{name}.cfg")["components"][FACTORY] for name in READY[2:0:-1])
    assert served.pop("model")["@architectures"] == "spacy-relx.OpenAICompatible.v1"
    assert flagship.pop("model")["base"] == "meta-llama/Llama-3.2-3B-Instruct"
    assert served == flagship


def test_the_published_training_settings() -> None:
    config = load_config(CONFIGS / "train_qlora_llama32.cfg")
    training = config["components"][FACTORY]["training"]
    assert (training["rank"], training["alpha"]) == (64, 128)
    assert config["components"][FACTORY]["model"]["quantization"] == "nf4"
    assert config["training"]["dropout"] == 0.05
    rate = config["training"]["optimizer"]["learn_rate"]
    assert rate["initial_rate"] == 1e-4
    assert rate["warmup_steps"] == 0.03 * config.interpolate()["training"]["optimizer"]["learn_rate"]["total_steps"]


@pytest.mark.parametrize("name", NAMES)
def test_it_builds_and_is_saved_without_weights(name: str, tmp_path: Path) -> None:
    nlp = load_model_from_config(load_config(CONFIGS / f"{name}.cfg"))
    assert nlp.pipe_names == ([FACTORY] if name in TRAINED else ["sentencizer", "entity_ruler", FACTORY])
    assert not engine_shim(nlp.get_pipe(FACTORY).model).is_loaded
    nlp.to_disk(tmp_path / "saved")
    again = spacy.load(tmp_path / "saved")
    assert again.config["components"][FACTORY] == nlp.config["components"][FACTORY]
    assert again.get_pipe(FACTORY).settings == nlp.get_pipe(FACTORY).settings


def test_assemble_builds_it_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "patterns.json").write_text(json.dumps([{"label": "ORG", "pattern": "Apple"}]))
    addition = f"""
[initialize.components.entity_ruler]

[initialize.components.entity_ruler.patterns]
@readers = "srsly.read_json.v1"
path = "{tmp_path / "patterns.json"}"
"""
    text = (CONFIGS / "smollm2.cfg").read_text(encoding="utf-8")
    (tmp_path / "with_patterns.cfg").write_text(text + addition, encoding="utf-8")
    done = spacy_command(tmp_path / "cache", "assemble", str(tmp_path / "with_patterns.cfg"), str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "cache").exists()
    nlp = spacy.load(tmp_path / "out")
    assert [ent.text for ent in nlp("Apple grew.", disable=[FACTORY]).ents] == ["Apple"]


def with_patterns(nlp: Language) -> Language:
    mentions = {"Steve Jobs": "PERSON", "Apple": "ORG", "Cupertino": "GPE"}
    nlp.get_pipe("entity_ruler").add_patterns([{"label": t, "pattern": text} for text, t in mentions.items()])
    return nlp


def check_relations(nlp: Language) -> None:
    """Without a negative label and a threshold, every pair that the schema allows has its best label."""
    extractor = nlp.get_pipe(FACTORY)
    doc = nlp("Steve Jobs co-founded Apple in Cupertino.")
    pairs = extractor.candidates(doc, extractor.schema.allowed)
    assert len(doc._.relations) == len(pairs) > 2
    assert {relation.label for relation in doc._.relations} <= set(extractor.labels)
    assert all(0 < relation.score <= 1 for relation in doc._.relations)
    nothing, again = nlp.pipe(["Nothing here.", doc.text])
    assert nothing._.relations == []
    assert [relation.to_dict() for relation in again._.relations] == [
        relation.to_dict() for relation in doc._.relations
    ]


@pytest.mark.model
@pytest.mark.usefixtures("embedded_base")
def test_the_embedded_models_config_finds_relations() -> None:
    everything = {f"components.{FACTORY}.no_relation": None, f"components.{FACTORY}.threshold": 0.0}
    check_relations(with_patterns(load_model_from_config(load_config(CONFIGS / "smollm2.cfg", everything))))


def tiny_llama32(folder: Path, tokenizer: Path) -> Path:
    """Llama 3.2 in small: its vocabulary, tokenizer and kind of rotary embedding, and random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=131_072,
        rope_parameters=rope,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=128_000,
        eos_token_id=[128_001, 128_008, 128_009],
        initializer_range=0.4,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    for path in tokenizer.iterdir():
        shutil.copy(path, folder)
    return folder


@pytest.mark.parametrize("decoding", ["constrained", "free"])
def test_the_flagships_config_runs_on_a_small_llama(
    decoding: str, tmp_path: Path, llama32_tokenizer_folder: Path
) -> None:
    base = tiny_llama32(tmp_path / "llama", llama32_tokenizer_folder)
    block = {"base": str(base), "adapter": None, "quantization": "none", "dtype": "float32", "device": "cpu"}
    overrides = {f"components.{FACTORY}.model.{key}": value for key, value in block.items()}
    overrides |= {f"components.{FACTORY}.{key}": value for key, value in (("no_relation", None), ("threshold", 0.0))}
    overrides[f"components.{FACTORY}.decoding"] = decoding
    nlp = with_patterns(load_model_from_config(load_config(CONFIGS / "llama32_gentune.cfg", overrides)))
    extractor = nlp.get_pipe(FACTORY)
    if decoding == "constrained":
        check_relations(nlp)
    else:
        doc = nlp("Steve Jobs co-founded Apple in Cupertino.")
        assert doc._.relations == []  # random weights say nothing of use
        assert len(doc._.relation_answers) == len(extractor.candidates(doc, extractor.schema.allowed))
    engine = engine_shim(extractor.model).engine
    assert type(engine).__name__ == "PackedEngine"
    builder, _ = extractor._bound()
    assert builder.chat.terminal == 128_009
    assert {128_001, 128_009} <= builder.stop_ids
    text = engine.loaded.tokenizer.decode(builder.prompt("s", "a", "b").ids)
    assert "Today Date: 26 Jul 2024\n\nYou are a relation extraction system. Be concise and direct." in text
    assert text.endswith("Entity 2: b\nRelation:<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")
