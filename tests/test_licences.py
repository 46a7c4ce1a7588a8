"""The notice of the Llama licence: who gets it, where it goes, and the command `info`, which shows it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import spacy
from tiny import FACTORY, model_block, pipeline
from typer.testing import CliRunner

from spacy_relx.cli import app
from spacy_relx.engine.spec import EMBEDDED_BASE, ModelSpec
from spacy_relx.errors import RelxWarning
from spacy_relx.licences import BUILT_WITH, add_to_meta, notice_for

if TYPE_CHECKING:
    from pathlib import Path

FLAGSHIP = {"model": {"@architectures": "spacy-relx.Llama32GenTune.v1"}}


@pytest.mark.parametrize(
    ("base", "licence"),
    [
        ("meta-llama/Llama-3.2-3B-Instruct", "llama3_2/license"),
        ("meta-llama/Llama-3.1-8B", "llama3_1/license"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "llama3/license"),
        ("unsloth/Llama-3.2-1B", "llama3_2/license"),
        ("/models/llama-3.2-3b-instruct", "llama3_2/license"),
        ("/models/Llama-3.2-3B-Instruct-Q4_K_M.gguf", "llama3_2/license"),
        ("meta-llama/Llama-2-7b-chat-hf", "ai.meta.com/llama/license"),
        ("meta-llama/something-new", "www.llama.com/license"),
    ],
)
def test_a_llama_has_a_notice(base: str, licence: str) -> None:
    notice = notice_for(ModelSpec(base))
    assert notice is not None
    assert notice.startswith(BUILT_WITH)
    assert licence in notice
    assert "use-policy" in notice
    assert 'with "Llama"' in notice


@pytest.mark.parametrize(
    "base",
    [
        EMBEDDED_BASE,
        "HuggingFaceTB/SmolLM2-360M-Instruct",
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        "openlm-research/open_llama_3b",
        "Qwen/Qwen2.5-0.5B-Instruct",
        "/home/llama/models/base",
    ],
)
def test_others_have_none(base: str) -> None:
    assert notice_for(ModelSpec(base)) is None


def test_a_local_folder_is_known_by_its_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_name_or_path": "meta-llama/Llama-3.2-1B"}))
    assert notice_for(ModelSpec(str(tmp_path))) is not None
    (tmp_path / "config.json").write_text("[]")
    assert notice_for(ModelSpec(str(tmp_path))) is None
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "meta-llama/Llama-3.2-1B"}))
    assert notice_for(ModelSpec("nowhere/base", adapter=str(tmp_path))) is not None


def test_the_preset_is_for_llamas_whatever_the_folder_is_called(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    block = FLAGSHIP["model"] | {"base": str(tmp_path), "adapter": None}
    notice = nlp.add_pipe(FACTORY, config={"model": block})._shim.notice
    assert notice is not None
    assert "Llama 3.2 Community License" in notice


def test_meta_gets_it_once_and_keeps_what_was_there() -> None:
    meta: dict[str, Any] = {"notes": "Mine.", "name": "mine"}
    for _ in range(2):
        add_to_meta(meta, "Theirs.")
    assert meta == {"notes": "Mine.\n\nTheirs.", "name": "mine"}


def test_a_saved_pipeline_carries_it(tmp_path: Path) -> None:
    nlp = pipeline(**FLAGSHIP)
    nlp.to_disk(tmp_path / "saved")
    notice = (tmp_path / "saved" / FACTORY / "NOTICE").read_text()
    assert "https://www.llama.com/llama3_2/license/" in notice
    assert "https://www.llama.com/llama3_2/use-policy/" in notice
    again = spacy.load(tmp_path / "saved")
    assert again.meta["name"] == "Llama_pipeline"
    assert again.meta["notes"].count(BUILT_WITH) == nlp.meta["notes"].count(BUILT_WITH)
    again.to_disk(tmp_path / "again")
    assert (tmp_path / "again" / FACTORY / "NOTICE").read_text() == notice


# spaCy's command leaves the files that it wrote to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_package_and_its_readme_carry_it(tmp_path: Path) -> None:
    from spacy.cli import package

    pipeline(**FLAGSHIP).to_disk(tmp_path / "saved")
    package(tmp_path / "saved", tmp_path, create_sdist=False)
    folder = tmp_path / "en_Llama_pipeline-0.0.0"
    assert BUILT_WITH in (folder / "README.md").read_text(encoding="utf8")
    assert (folder / "en_Llama_pipeline" / "en_Llama_pipeline-0.0.0" / FACTORY / "NOTICE").is_file()


@pytest.mark.parametrize("name", ["Llama_mine", "llama-mine"])
def test_a_name_that_begins_with_llama_is_kept(name: str, tmp_path: Path) -> None:
    nlp = pipeline(**FLAGSHIP)
    nlp.meta["name"] = name
    nlp.to_disk(tmp_path)
    assert json.loads((tmp_path / "meta.json").read_text())["name"] == name


def test_saving_under_another_name_warns_and_info_tells_it_again(tmp_path: Path) -> None:
    nlp = pipeline(**FLAGSHIP)
    nlp.meta["name"] = "mine"
    with pytest.warns(RelxWarning, match=r"called 'mine'.*nlp\.meta\[\"name\"\] = \"Llama_mine\""):
        nlp.to_disk(tmp_path / "saved")
    assert facts("--pipeline", tmp_path / "saved")["name"].startswith("The pipeline is called 'mine'")
    result = CliRunner().invoke(app, ["info", "--pipeline", str(tmp_path / "saved")])
    assert "The pipeline is called 'mine'" in result.stderr
    # The component alone is saved without a pipeline's name.
    nlp.get_pipe(FACTORY).to_disk(tmp_path / "alone" / FACTORY)
    # Other bases may be called anything.
    other = pipeline()
    other.meta["name"] = "mine"
    other.to_disk(tmp_path / "other")
    assert facts("--pipeline", tmp_path / "other")["name"] is None


def test_another_pipeline_has_none_also_where_one_was_saved_before(tmp_path: Path) -> None:
    pipeline(**FLAGSHIP).get_pipe(FACTORY).to_disk(tmp_path)
    nlp = pipeline()
    nlp.get_pipe(FACTORY).to_disk(tmp_path)
    assert not (tmp_path / "NOTICE").exists()
    assert "notes" not in nlp.meta
    assert nlp.meta["name"] == "pipeline"


# info


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("info loads no weights")

    monkeypatch.setattr("spacy_relx.engine.loading.load_model", refuse)


def info(*arguments: Any) -> str:
    result = CliRunner().invoke(app, ["info", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def facts(*arguments: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(info(*arguments, "--json"))
    return found


@pytest.mark.usefixtures("no_loading")
def test_info_of_the_default_where_nothing_was_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACY_RELX_CACHE", str(tmp_path))
    found = facts()
    assert found["model"] == EMBEDDED_BASE
    assert found["model on this machine"] is None
    assert found["weights in memory"] is None
    assert found["cache"] == str(tmp_path)
    assert found["notice"] is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_loading")
def test_info_of_a_saved_pipeline(tiny_llama: Path, tmp_path: Path) -> None:
    pipeline(model=model_block(tiny_llama)).to_disk(tmp_path / "saved")
    found = facts("--pipeline", tmp_path / "saved")
    assert found["component"] == FACTORY
    assert found["model on this machine"] == str(tiny_llama)
    assert (found["device"], found["dtype"]) == ("cpu", "float32")
    # 49,152 embeddings of 32 values and two small layers, four bytes each.
    assert found["weights in memory"] == "about 6 MB"
    assert found["answers kept in"] is None


@pytest.mark.usefixtures("no_loading")
def test_info_says_where_answers_are_kept(tmp_path: Path) -> None:
    block = {"@architectures": "spacy-relx.Cached.v1", "model": model_block("nowhere"), "path": str(tmp_path / "kept")}
    pipeline(model=block).to_disk(tmp_path / "saved")
    assert facts("--pipeline", tmp_path / "saved")["answers kept in"] == str(tmp_path / "kept" / "answers-1.sqlite3")
    assert not (tmp_path / "kept").exists()


@pytest.mark.usefixtures("no_loading")
def test_info_of_the_flagship_shows_its_licence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    printed = info("--model-preset", "Llama32GenTune")
    assert "meta-llama/Llama-3.2-3B-Instruct" in printed
    assert "Despina/Llama-3.2-3B-Instruct-re_gentune-2-shot" in printed
    assert "nf4" in printed
    assert BUILT_WITH in printed
    assert "https://www.llama.com/llama3_2/license/" in printed


def test_info_refuses_a_pipeline_with_a_model_beside_it() -> None:
    result = CliRunner().invoke(app, ["info", "--pipeline", "x", "--model-preset", "SmolLM2"])
    assert result.exit_code == 2
