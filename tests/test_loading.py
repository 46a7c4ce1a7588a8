from __future__ import annotations

import json
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from spacy_relx.engine import loading
from spacy_relx.engine.adapter import METADATA_KEY, read_adapter, verify_adapter
from spacy_relx.engine.checkpoint import base_fingerprint, check_base_folder
from spacy_relx.engine.device import choose_device, choose_dtype
from spacy_relx.engine.skeleton import layers_of
from spacy_relx.engine.spec import EMBEDDED_BASE, ModelSpec
from spacy_relx.errors import AdapterMismatchError, ModelError, ModelNotFoundError, UnsafeCheckpointError

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FIRST_KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def adapter_state(model: torch.nn.Module, r: int, *, seed: int = 0, size: float = 0.02) -> dict[str, torch.Tensor]:
    """Random low-rank tensors for every linear layer but the output, under PEFT's names."""
    random = torch.Generator().manual_seed(seed)
    state: dict[str, torch.Tensor] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and name != "lm_head":
            for part, shape in (("A", (r, layer.in_features)), ("B", (layer.out_features, r))):
                state[f"base_model.model.{name}.lora_{part}.weight"] = torch.randn(shape, generator=random) * size
    return state


def write_adapter(folder: Path, state: dict[str, torch.Tensor], rank: int, **settings: Any) -> Path:
    metadata = settings.pop("metadata", None)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.05,
        "bias": "none",
        "target_modules": [*PROJECTIONS],
        "base_model_name_or_path": "some/base",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config | settings))
    header = None if metadata is None else {METADATA_KEY: json.dumps(metadata), "format": "pt"}
    save_file(state, folder / "adapter_model.safetensors", metadata=header)
    return folder


@pytest.fixture(scope="module")
def tokenizer_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tokenizer")
    vocabulary = {"<|end|>": 0, "a": 1, "b": 2, "c": 3, "[UNK]": 4}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", unk_token="[UNK]")
    tokenizer.chat_template = "base: {{ messages[0]['content'] }}"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory, tokenizer_files: Path) -> Path:
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    shutil.copytree(tokenizer_files, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def tiny_state(tiny_base: Path) -> dict[str, torch.Tensor]:
    return adapter_state(AutoModelForCausalLM.from_pretrained(tiny_base), r=4, size=0.2)


@pytest.fixture
def tiny_adapter(tmp_path: Path, tiny_state: dict[str, torch.Tensor]) -> Path:
    return write_adapter(tmp_path / "adapter", tiny_state, 4)


def spec_of(base: Path | str, adapter: Path | None = None, **settings: Any) -> ModelSpec:
    settings = {"device": "cpu", "dtype": "float32"} | settings
    return ModelSpec(str(base), adapter=None if adapter is None else str(adapter), **settings)


def logits(model: torch.nn.Module, n_tokens: int = 12, vocabulary: int = 60) -> torch.Tensor:
    ids = torch.randint(5, vocabulary, (1, n_tokens), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(ids).logits[0].float()


# Adapters, tiny model.


def test_merged_and_unmerged_agree(tiny_base: Path, tiny_adapter: Path) -> None:
    bare = loading.load_model(spec_of(tiny_base))
    merged = loading.load_model(spec_of(tiny_base, tiny_adapter))
    beside = loading.load_model(spec_of(tiny_base, tiny_adapter, merge_adapter=False))
    assert type(merged.model) is type(beside.model) is LlamaForCausalLM
    assert not any("lora" in name for name, _ in merged.model.named_parameters())
    assert isinstance(merged.model.model.layers[0].mlp.up_proj, torch.nn.Linear)
    assert (logits(merged.model) - logits(beside.model)).abs().max() < 1e-5
    assert (logits(merged.model) - logits(bare.model)).abs().max() > 1e-2
    assert len({bare.fingerprint, merged.fingerprint, beside.fingerprint}) == 3
    assert bare.base_fingerprint == merged.base_fingerprint
    assert bare.adapter_info == {}
    assert merged.adapter_info["config"]["r"] == 4
    assert merged.adapter_info["merged"] is True
    for loaded in (bare, merged, beside):
        assert not loaded.model.training
        assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_agrees_with_peft(tiny_base: Path, tiny_adapter: Path) -> None:
    from peft import PeftModel

    oracle = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), str(tiny_adapter)).eval()
    assert (logits(oracle) - logits(loading.load_model(spec_of(tiny_base, tiny_adapter)).model)).abs().max() < 1e-5


@pytest.mark.parametrize(
    "settings",
    [
        {"use_rslora": True},
        {"alpha_pattern": {"q_proj": 1}},
        {"target_modules": r".*\.(self_attn|mlp)\.[a-z]+_proj"},
        {"target_modules": "all-linear"},
        {"target_modules": None},
        {"init_lora_weights": "gaussian"},
    ],
)
def test_settings_mean_what_peft_means(
    tiny_base: Path, tmp_path: Path, tiny_state: dict[str, torch.Tensor], settings: dict[str, Any]
) -> None:
    from peft import PeftModel

    adapter = write_adapter(tmp_path / "a", tiny_state, 4, **settings)
    oracle = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), str(adapter)).eval()
    for merge in (True, False):
        loaded = loading.load_model(spec_of(tiny_base, adapter, merge_adapter=merge))
        if settings.get("target_modules", "") is not None:  # then PEFT guesses two of the seven layers
            assert (logits(oracle) - logits(loaded.model)).abs().max() < 1e-5


def test_rank_pattern(tiny_base: Path, tmp_path: Path, tiny_state: dict[str, torch.Tensor]) -> None:
    state = dict(tiny_state)
    for key in state:
        if "k_proj" in key:
            state[key] = state[key][:2].contiguous() if "lora_A" in key else state[key][:, :2].contiguous()
    adapter = write_adapter(tmp_path / "a", state, 4, rank_pattern={"k_proj": 2})
    assert torch.isfinite(logits(loading.load_model(spec_of(tiny_base, adapter)).model)).all()


def test_merge_is_in_float32_before_the_cast(tiny_base: Path, tiny_adapter: Path) -> None:
    exact = loading.load_model(spec_of(tiny_base, tiny_adapter)).model
    cast = loading.load_model(spec_of(tiny_base, tiny_adapter, dtype="bfloat16"))
    assert cast.dtype == torch.bfloat16
    weights = dict(cast.model.named_parameters())
    for name, value in exact.named_parameters():
        assert torch.equal(weights[name], value.to(torch.bfloat16)), name
    assert cast.model.lm_head.weight is cast.model.model.embed_tokens.weight
    assert cast.model.model.rotary_emb.inv_freq.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapter_beside_has_the_compute_dtype(tiny_base: Path, tiny_adapter: Path, dtype: str) -> None:
    loaded = loading.load_model(spec_of(tiny_base, tiny_adapter, dtype=dtype, merge_adapter=False))
    layer = loaded.model.model.layers[0].self_attn.q_proj
    assert layer.lora_A["default"].weight.dtype == layer.lora_B["default"].weight.dtype == getattr(torch, dtype)


def drop(state: dict[str, torch.Tensor]) -> None:
    del state[FIRST_KEY]


def drop_layer(state: dict[str, torch.Tensor]) -> None:
    del state[FIRST_KEY], state[FIRST_KEY.replace("lora_A", "lora_B")]


def reshape(state: dict[str, torch.Tensor]) -> None:
    state[FIRST_KEY] = torch.zeros(4, 33)


def other_rank(state: dict[str, torch.Tensor]) -> None:
    state[FIRST_KEY] = torch.zeros(8, 32)


def other_layer(state: dict[str, torch.Tensor]) -> None:
    state[FIRST_KEY.replace("layers.0", "layers.9")] = state.pop(FIRST_KEY)


def no_prefix(state: dict[str, torch.Tensor]) -> None:
    state["layers.0.x"] = torch.zeros(1)


def unknown(state: dict[str, torch.Tensor]) -> None:
    state[FIRST_KEY.replace("lora_A.weight", "lora_magnitude_vector")] = torch.zeros(4)


def on_output(state: dict[str, torch.Tensor]) -> None:
    state["base_model.model.lm_head.lora_A.weight"] = torch.zeros(4, 32)
    state["base_model.model.lm_head.lora_B.weight"] = torch.zeros(64, 4)


def whole_layer(state: dict[str, torch.Tensor]) -> None:
    state["base_model.model.model.layers.0.mlp.up_proj.weight"] = torch.zeros(48, 32)


def small_embedding(state: dict[str, torch.Tensor]) -> None:
    state["base_model.model.model.embed_tokens.weight"] = torch.zeros(60, 32)


def own_output(state: dict[str, torch.Tensor]) -> None:
    state["base_model.model.lm_head.weight"] = torch.zeros(64, 32)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (drop, rf"lacks the key '{FIRST_KEY}'"),
        (drop_layer, rf"lacks the key '{FIRST_KEY}'"),
        (reshape, rf"{FIRST_KEY}' has the shape \[4, 33\]. Expected \[4, 32\]"),
        (other_rank, r"has the shape \[8, 32\]. Expected \[4, 32\]"),
        (other_layer, "no linear layer"),
        (no_prefix, "has the key 'layers.0.x'"),
        (unknown, "lora_magnitude_vector"),
        (on_output, "shares with its embedding"),
        (whole_layer, "replaces a whole layer"),
        (small_embedding, r"\[60, 32\]. Expected \[64, 32\]"),
        (own_output, "without the other"),
    ],
)
def test_wrong_adapters_are_named(
    tiny_base: Path,
    tmp_path: Path,
    tiny_state: dict[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
    change: Any,
    expected: str,
) -> None:
    state = dict(tiny_state)
    change(state)
    adapter = write_adapter(tmp_path / "a", state, 4)
    monkeypatch.setattr(loading, "_load_weights", lambda *_, **__: pytest.fail("weights were read"))
    with pytest.raises(AdapterMismatchError, match=expected) as caught:
        loading.load_model(spec_of(tiny_base, adapter))
    assert "made for some/base" in str(caught.value)
    assert str(tiny_base) in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"peft_type": "IA3"}, "of the type 'IA3'"),
        ({"use_dora": True}, "use_dora"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
        ({"bias": "all"}, "bias='all'"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"target_modules": ["q_proj"]}, "do not select"),
        ({"r": 8}, r"Expected \[\d+, \d+\] \(rank 8"),
    ],
)
def test_other_kinds_of_adapter_are_refused(
    tiny_base: Path, tmp_path: Path, tiny_state: dict[str, torch.Tensor], settings: dict[str, Any], expected: str
) -> None:
    adapter = write_adapter(tmp_path / "a", tiny_state, 4, **settings)
    with pytest.raises(AdapterMismatchError, match=expected):
        loading.load_model(spec_of(tiny_base, adapter))


def test_trained_embedding_is_put_in_place(
    tiny_base: Path, tmp_path: Path, tiny_state: dict[str, torch.Tensor]
) -> None:
    embedding = torch.randn(64, 32)
    state = tiny_state | {"base_model.model.model.embed_tokens.weight": embedding}
    model = loading.load_model(spec_of(tiny_base, write_adapter(tmp_path / "a", state, 4))).model
    assert torch.equal(model.model.embed_tokens.weight, embedding)
    assert torch.equal(model.lm_head.weight, embedding)


def test_base_fingerprint_in_the_adapter(tiny_base: Path, tmp_path: Path, tiny_state: dict[str, torch.Tensor]) -> None:
    identity = base_fingerprint(tiny_base)
    facts = {"base_fingerprint": identity, "threshold": 0.7}
    right = write_adapter(tmp_path / "right", tiny_state, 4, metadata=facts)
    loaded = loading.load_model(spec_of(tiny_base, right))
    assert loaded.adapter_info["metadata"] == facts
    wrong = write_adapter(tmp_path / "wrong", tiny_state, 4, metadata=facts | {"base_fingerprint": "f" * 32})
    with pytest.raises(AdapterMismatchError, match=identity):
        loading.load_model(spec_of(tiny_base, wrong))


def test_fingerprint_of_a_base(tiny_base: Path, tmp_path: Path) -> None:
    identity = base_fingerprint(tiny_base)
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="5KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert base_fingerprint(tmp_path / "sharded") == identity
    model.to(torch.bfloat16).save_pretrained(tmp_path / "bf16")
    assert base_fingerprint(tmp_path / "bf16") == identity
    with torch.no_grad():
        model.model.norm.weight[0] = 3.0
    model.save_pretrained(tmp_path / "trained")
    assert base_fingerprint(tmp_path / "trained") != identity


# Unsafe and damaged files.


def test_pickled_base_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    shutil.copy(tiny_base / "config.json", folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(UnsafeCheckpointError, match=r"pytorch_model\.bin"):
        loading.load_model(spec_of(folder))


def test_pickled_adapter_is_refused(tiny_base: Path, tiny_adapter: Path) -> None:
    (tiny_adapter / "adapter_model.safetensors").unlink()
    (tiny_adapter / "adapter_model.bin").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(UnsafeCheckpointError, match=r"adapter_model\.bin"):
        loading.load_model(spec_of(tiny_base, tiny_adapter))


def edited_copy(base: Path, target: Path, **changes: Any) -> Path:
    shutil.copytree(base, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | changes))
    return target


def test_remote_code_is_never_run(tiny_base: Path, tmp_path: Path) -> None:
    evil = "raise SystemExit('ran')"
    code = {"auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
    known = edited_copy(tiny_base, tmp_path / "known", **code)
    unknown = edited_copy(tiny_base, tmp_path / "unknown", model_type="evil", **code)
    for folder in (known, unknown):
        (folder / "evil.py").write_text(evil)
    assert torch.isfinite(logits(loading.load_model(spec_of(known)).model)).all()
    with pytest.raises(UnsafeCheckpointError, match="program code"):
        loading.load_model(spec_of(unknown))


@pytest.mark.parametrize(
    ("changes", "error", "expected"),
    [
        ({"model_type": "evil"}, ModelError, "does not know"),
        ({"transformers_weights": "model.bin"}, UnsafeCheckpointError, "model.bin"),
        ({"quantization_config": {"quant_method": "gptq"}}, ModelError, "gptq"),
        ({"intermediate_size": 50}, ModelError, "could not be loaded"),
    ],
)
def test_unusable_configurations(
    tiny_base: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception], expected: str
) -> None:
    with pytest.raises(error, match=expected):
        loading.load_model(spec_of(edited_copy(tiny_base, tmp_path / "edited", **changes)))


def test_damaged_files(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    short = edited_copy(tiny_base, tmp_path / "short")
    weights = short / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"Expected \d+ from its header"):
        loading.load_model(spec_of(short))
    weights.write_bytes(struct.pack("<Q", 1 << 60))
    with pytest.raises(ModelError, match="not a safetensors file"):
        loading.load_model(spec_of(short))
    weights.unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        loading.load_model(spec_of(short))
    (short / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    with pytest.raises(ModelError, match=r"lacks model-1\.safetensors"):
        loading.load_model(spec_of(short))
    with pytest.raises(ModelError, match="is an adapter, not a base"):
        loading.load_model(spec_of(tiny_adapter))
    with pytest.raises(ModelError, match="is not a LoRA adapter"):
        loading.load_model(spec_of(tiny_base, tiny_base))
    (tiny_adapter / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read as JSON"):
        loading.load_model(spec_of(tiny_base, tiny_adapter))
    with pytest.raises(ModelNotFoundError, match="There is no folder"):
        loading.load_model(spec_of(tmp_path / "absent"))


def test_base_with_an_adapter_inside_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    folder = edited_copy(tiny_base, tmp_path / "both")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="at once"):
        check_base_folder(folder)


# Tokenizer, device, number format.


def test_tokenizer_of_the_adapter_comes_first(tiny_base: Path, tiny_adapter: Path, tokenizer_files: Path) -> None:
    base_template = "base: {{ messages[0]['content'] }}"
    assert loading.load_tokenizer(spec_of(tiny_base, tiny_adapter)).chat_template == base_template
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (tokenizer_files / name).read_text()
        (tiny_adapter / name).write_text(text.replace('"[UNK]"', '"[WHAT]"'))
    tokenizer = loading.load_tokenizer(spec_of(tiny_base, tiny_adapter))
    assert tokenizer.unk_token == "[WHAT]"
    assert tokenizer.chat_template == base_template
    (tiny_adapter / "chat_template.jinja").write_text("adapter")
    assert loading.load_tokenizer(spec_of(tiny_base, tiny_adapter)).chat_template == "adapter"


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ModelError, match=r"cuda:99"):
        choose_device("cuda:99")
    with pytest.raises(ModelError, match="'toaster'"):
        choose_device("toaster")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx2": True}, torch.float32),
    ],
)
def test_auto_dtype_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert choose_dtype("auto", torch.device("cpu")) == expected
    assert choose_dtype("float16", torch.device("cpu")) == torch.float16
    assert choose_dtype("auto", torch.device("cuda")) == torch.bfloat16


def test_missing_bitsandbytes_names_the_extra(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModelError, match=r"pip install 'spacy-relx\[gpu\]'"):
        loading.load_model(spec_of(tiny_base, quantization="nf4"))


def test_engine_imports_without_spacy() -> None:
    code = (
        "import sys, types\n"
        "package = types.ModuleType('spacy_relx'); package.__path__ = ['spacy_relx']\n"
        "sys.modules['spacy_relx'] = package\n"
        "sys.modules['spacy'] = None\n"
        "import spacy_relx.engine.loading\n"
        "assert not {'peft', 'bitsandbytes', 'thinc'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


# The flagship's shape.


def flagship_config(**changes: Any) -> LlamaConfig:
    settings = {
        "vocab_size": 128256,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "tie_word_embeddings": True,
        "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009],
    }
    return LlamaConfig(**(settings | changes))


def test_flagship_adapter_passes_on_the_meta_device(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(flagship_config())
    model.tie_weights()  # transformers 5.0 leaves that out on the meta device
    layers = layers_of(model)
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_212_749_824
    assert layers.tied
    assert (layers.output, layers.embedding) == ("lm_head", "model.embed_tokens")
    # By hand, for each of 28 layers and rank 64: inputs + outputs of q, o (3072 each), k, v (1024), gate, up, down.
    per_layer = 64 * (2 * (3072 + 3072) + 2 * (3072 + 1024) + 3 * (3072 + 8192))
    assert 28 * per_layer == 97_255_424

    # The real file has 390 MB; its header alone is what the check reads, so a sparse file stands in for it.
    def write(change: tuple[str, list[int]] | None = None, drop: str | None = None) -> Path:
        entries: dict[str, Any] = {}
        offset = 0
        for name, (n_out, n_in) in layers.linear.items():
            if name == "lm_head":
                continue
            for part, shape in (("A", [64, n_in]), ("B", [n_out, 64])):
                key = f"base_model.model.{name}.lora_{part}.weight"
                if key == drop:
                    continue
                if change is not None and key == change[0]:
                    shape = change[1]
                size = 2 * shape[0] * shape[1]
                entries[key] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
                offset += size
        header = json.dumps(entries).encode()
        folder = tmp_path / "adapter"
        write_adapter(folder, {"x": torch.zeros(1)}, 64)
        with (folder / "adapter_model.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            file.truncate(8 + len(header) + offset)
        return folder

    def verify(folder: Path) -> None:
        adapter = read_adapter(folder)
        verify_adapter(adapter, layers, lambda name: name.endswith(PROJECTIONS), base="flagship", fingerprint="")
        total = sum(info.shape[0] * info.shape[1] for info in adapter.tensors.values())
        assert total == 97_255_424

    key = "base_model.model.model.layers.27.self_attn.v_proj.lora_B.weight"
    verify(write())
    with pytest.raises(
        AdapterMismatchError, match=r"v_proj.lora_B.weight' has the shape \[3072, 64\]. Expected \[1024"
    ):
        verify(write(change=(key, [3072, 64])))
    with pytest.raises(AdapterMismatchError, match=f"lacks the key '{key}'"):
        verify(write(drop=key))


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory, tokenizer_files: Path) -> tuple[Path, Path]:
    """The flagship at an eighth of its width and four layers, with an adapter of the same kind."""
    folder = tmp_path_factory.mktemp("twin")
    torch.manual_seed(0)
    config = flagship_config(
        vocab_size=512,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=3,
        num_key_value_heads=1,
        bos_token_id=0,
        eos_token_id=[1],
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder / "base")
    shutil.copytree(tokenizer_files, folder / "base", dirs_exist_ok=True)
    state = {key: value.to(torch.bfloat16) for key, value in adapter_state(model, 8).items()}
    return folder / "base", write_adapter(folder / "adapter", state, 8)


@pytest.mark.parametrize("quantization", ["nf4", "fp4"])
@pytest.mark.parametrize("double_quant", [True, False])
def test_quantized_twin_equals_its_dequantized_weights(
    twin: tuple[Path, Path], quantization: Any, double_quant: bool
) -> None:
    import bitsandbytes as bnb

    base, adapter = twin
    spec = spec_of(base, adapter, quantization=quantization, double_quant=double_quant, dtype="float32")
    loaded = loading.load_model(spec)
    plain = loading.load_model(spec_of(base, adapter)).model
    with torch.no_grad():
        for name, layer in loaded.model.named_modules():
            if isinstance(layer, bnb.nn.Linear4bit):
                weights = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
                module = plain.get_submodule(name.removesuffix(".base_layer"))
                state = load_file(adapter / "adapter_model.safetensors")
                key = f"base_model.model.{name.removesuffix('.base_layer')}"
                a, b = (state[f"{key}.lora_{part}.weight"].float() for part in "AB")
                module.weight.copy_(weights.float() + 2.0 * b @ a)
    assert isinstance(loaded.model.model.layers[0].mlp.up_proj.base_layer, bnb.nn.Linear4bit)
    got, expected = logits(loaded.model, vocabulary=500), logits(plain, vocabulary=500)
    assert torch.isfinite(got).all()
    assert (got - expected).abs().max() < 1e-4
    assert loaded.model.lm_head.weight.dtype == torch.float32


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantized_twin_in_bfloat16(twin: tuple[Path, Path], quantization: Any) -> None:
    base, adapter = twin
    loaded = loading.load_model(spec_of(base, adapter, quantization=quantization, dtype="bfloat16"))
    unquantized = logits(loading.load_model(spec_of(base, adapter)).model, vocabulary=500)
    got = logits(loaded.model, vocabulary=500)
    assert torch.isfinite(got).all()
    assert torch.nn.functional.cosine_similarity(got, unquantized, dim=-1).min() > 0.95
    assert loaded.adapter_info["merged"] is False


def test_stored_quantization_loads(twin: tuple[Path, Path], tmp_path: Path, tokenizer_files: Path) -> None:
    base, adapter = twin
    model = loading.load_model(spec_of(base, quantization="nf4")).model
    model.save_pretrained(tmp_path / "stored")
    shutil.copytree(tokenizer_files, tmp_path / "stored", dirs_exist_ok=True)
    again = loading.load_model(spec_of(tmp_path / "stored", adapter))
    assert again.adapter_info["merged"] is False
    reference = loading.load_model(spec_of(base, adapter, quantization="nf4"))
    assert (logits(again.model, vocabulary=500) - logits(reference.model, vocabulary=500)).abs().max() < 1e-3


# The embedded model.

TEXT = "Steve Jobs founded Apple in 1976.\n\n2 people: <|im_end|> and «é 中»."


def answer(loaded: loading.LoadedModel, text: str = "The capital of France is") -> torch.Tensor:
    ids = torch.tensor([loaded.tokenizer(text).input_ids])
    with torch.no_grad():
        return loaded.model(ids).logits[0, -1].float()


@pytest.fixture(scope="module")
def embedded_adapter(embedded_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = AutoModelForCausalLM.from_pretrained(embedded_base)
    state = {key: value.to(torch.bfloat16) for key, value in adapter_state(model, 16, size=0.03).items()}
    assert sum(value.numel() for value in state.values()) == 4_884_480
    return write_adapter(tmp_path_factory.mktemp("adapter"), state, 16)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(subprocess, "run", refuse)


@pytest.mark.model
@pytest.mark.usefixtures("embedded_base", "no_network")
def test_embedded_model_answers_offline(capfd: pytest.CaptureFixture[str]) -> None:
    exact = loading.load_model(spec_of(EMBEDDED_BASE))
    half = loading.load_model(spec_of(EMBEDDED_BASE, dtype="bfloat16", local_files_only=True))
    assert capfd.readouterr() == ("", "")
    expected, got = answer(exact), answer(half)
    assert exact.tokenizer.decode(int(expected.argmax())) == exact.tokenizer.decode(int(got.argmax())) == " Paris"
    assert (expected - got).abs().max() < 1.0
    assert half.model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert exact.fingerprint != half.fingerprint
    assert exact.base_fingerprint == half.base_fingerprint == "f1eb09c2e6d094d2f8faa36651c27ca6"


@pytest.mark.model
@pytest.mark.usefixtures("embedded_base", "no_network")
def test_embedded_tokenizer() -> None:
    tokenizer = loading.load_tokenizer(spec_of(EMBEDDED_BASE))
    ids = tokenizer(TEXT, split_special_tokens=True).input_ids
    assert 2 not in ids
    assert tokenizer.decode(ids) == TEXT
    assert 2 in tokenizer(TEXT).input_ids
    # The rule of its vocabulary splits digits off first, so two newlines before one stay together.
    assert tokenizer.convert_ids_to_tokens(tokenizer("a\n\n23").input_ids) == ["a", "ĊĊ", "2", "3"]
    chat = tokenizer.apply_chat_template([{"role": "system", "content": "S"}], tokenize=False)
    assert chat == "<|im_start|>system\nS<|im_end|>\n"


@pytest.mark.model
@pytest.mark.usefixtures("embedded_base", "no_network")
def test_embedded_model_in_four_bits_with_an_adapter(embedded_adapter: Path) -> None:
    import bitsandbytes as bnb

    with_adapter = loading.load_model(
        spec_of(EMBEDDED_BASE, embedded_adapter, quantization="nf4", dtype="auto", double_quant=True)
    )
    without = loading.load_model(spec_of(EMBEDDED_BASE, quantization="nf4", dtype="auto"))
    assert with_adapter.dtype == torch.bfloat16
    model = with_adapter.model
    assert model.lm_head.weight.dtype == model.model.embed_tokens.weight.dtype == torch.bfloat16
    assert model.lm_head.weight is model.model.embed_tokens.weight
    layer = model.model.layers[3].mlp.down_proj
    assert isinstance(layer.base_layer, bnb.nn.Linear4bit)
    assert layer.base_layer.weight.quant_state.nested
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert a.dtype == b.dtype == torch.bfloat16
    x = torch.randn(5, layer.base_layer.in_features, generator=torch.Generator().manual_seed(0))
    weight = bnb.functional.dequantize_4bit(layer.base_layer.weight.data, layer.base_layer.weight.quant_state).float()
    expected = x @ (weight + 2.0 * b.float() @ a.float()).T
    with torch.no_grad():
        got = layer(x.to(torch.bfloat16)).float()
    assert (got - expected).abs().max() / expected.abs().max() < 0.02
    assert (answer(with_adapter) - answer(without)).abs().max() > 0.5


@pytest.mark.model
@pytest.mark.usefixtures("embedded_base")
def test_embedded_model_merged_and_beside(embedded_adapter: Path) -> None:
    merged = loading.load_model(spec_of(EMBEDDED_BASE, embedded_adapter))
    beside = loading.load_model(spec_of(EMBEDDED_BASE, embedded_adapter, merge_adapter=False))
    assert (answer(merged) - answer(beside)).abs().max() < 2e-3
