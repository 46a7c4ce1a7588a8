"""Adapters as they start, are saved and come back."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft import PeftConfig, PeftModel
from tiny import build_adapter, build_base

from spacy_relx import fetch
from spacy_relx.engine.adapter import read_adapter
from spacy_relx.engine.loading import load_model
from spacy_relx.engine.quiet import import_bitsandbytes
from spacy_relx.engine.spec import EMBEDDED_BASE, ModelSpec
from spacy_relx.errors import AdapterMismatchError, ConfigError, TrainingError
from spacy_relx.training import lora as training_lora
from spacy_relx.training.encode import TrainRow
from spacy_relx.training.files import replaced_folder, restore
from spacy_relx.training.gradient import GradientStep
from spacy_relx.training.lora import LoraWeights
from spacy_relx.training.lora_settings import LoraSettings

if TYPE_CHECKING:
    from pathlib import Path

IDS = torch.tensor([[5, 77, 901, 33, 1200]])


def load(base: Path | str, **settings: Any) -> Any:
    return load_model(ModelSpec(str(base), dtype="float32", device="cpu", **settings))


def logits(loaded: Any) -> torch.Tensor:
    with torch.no_grad():
        return loaded.model(input_ids=IDS, use_cache=False).logits


def randomise(weights: LoraWeights) -> None:
    torch.manual_seed(3)
    for master in weights.masters.values():
        master.normal_(0, 0.2)
    weights.write()


def test_a_new_adapter_starts_as_the_base(tiny_llama: Path) -> None:
    before = logits(load(tiny_llama))
    loaded = load(tiny_llama, merge_adapter=False)
    weights = LoraWeights(loaded, LoraSettings(4, 8))
    assert torch.equal(logits(loaded), before)
    assert weights.n_parameters == sum(p.numel() for p in loaded.model.parameters() if p.requires_grad)
    assert len(weights.masters) == 2 * 2 * 7  # layers, A and B, projections


def test_the_start_depends_on_the_seed_alone(tiny_llama: Path) -> None:
    a, b, c = (LoraWeights(load(tiny_llama), LoraSettings(4, 8), seed=seed) for seed in (1, 1, 2))
    name = next(iter(a.masters))
    assert torch.equal(a.masters[name], b.masters[name])
    assert not torch.equal(a.masters[name], c.masters[name])


@pytest.mark.parametrize("merged", [False, True])
def test_what_is_saved_computes_what_was_computed(tiny_llama: Path, tmp_path: Path, merged: bool) -> None:
    loaded = load(tiny_llama, merge_adapter=False)
    weights = LoraWeights(loaded, LoraSettings(4, 8))
    randomise(weights)
    weights.save(tmp_path / "adapter", {"threshold": 0.4})
    back = load(tiny_llama, adapter=str(tmp_path / "adapter"), merge_adapter=merged)
    torch.testing.assert_close(logits(back), logits(loaded), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits(back), logits(load(tiny_llama)), atol=1e-2)
    metadata = read_adapter(tmp_path / "adapter").metadata
    assert metadata["threshold"] == 0.4
    assert metadata["base_fingerprint"] == loaded.base_fingerprint


def test_an_adapter_of_another_base_is_refused_after_training(
    tiny_llama: Path, tmp_path: Path, embedded_base: Path
) -> None:
    weights = LoraWeights(load(tiny_llama), LoraSettings(4, 8))
    weights.save(tmp_path / "adapter")
    other = build_base(tmp_path / "other", embedded_base, seed=9)
    with pytest.raises(AdapterMismatchError, match="trained on weights with the fingerprint"):
        load(other, adapter=str(tmp_path / "adapter"))


def test_training_goes_on_from_an_adapter_with_its_own_shape(tiny_llama: Path, tmp_path: Path) -> None:
    folder = build_adapter(tmp_path / "adapter")
    loaded = load(tiny_llama, adapter=str(folder), merge_adapter=False)
    weights = LoraWeights(loaded, LoraSettings(16, 32))
    assert weights.rank == 4
    assert len(weights.masters) == 2 * 2  # the query projections of two layers
    weights.save(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "adapter_config.json").read_text())["lora_alpha"] == 8


def test_a_merged_adapter_cannot_be_trained(tiny_llama: Path, tmp_path: Path) -> None:
    loaded = load(tiny_llama, adapter=str(build_adapter(tmp_path / "adapter")))
    with pytest.raises(TrainingError, match="merge_adapter=False"):
        LoraWeights(loaded)


@pytest.mark.parametrize("name", ["qq_proj", "lm_head", "embed_tokens"])
def test_only_projections_are_trained(tiny_llama: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"target_modules names '{name}', which is no projection"):
        LoraWeights(load(tiny_llama), LoraSettings(4, 8, ("q_proj", name)))


def test_plain_peft_reads_what_is_saved(tiny_llama: Path, tmp_path: Path) -> None:
    loaded = load(tiny_llama, merge_adapter=False)
    weights = LoraWeights(loaded, LoraSettings(4, 8))
    randomise(weights)
    weights.save(tmp_path / "adapter")
    theirs = PeftModel.from_pretrained(load(tiny_llama).model, str(tmp_path / "adapter"))
    with torch.no_grad():
        torch.testing.assert_close(theirs(input_ids=IDS, use_cache=False).logits, logits(loaded), rtol=1e-5, atol=1e-5)
    assert PeftConfig.from_pretrained(str(tmp_path / "adapter")).base_model_name_or_path == str(tiny_llama)


@pytest.mark.parametrize("goes_on", [False, True])
def test_the_embedded_base_is_called_by_its_name_on_the_hub(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goes_on: bool
) -> None:
    """There nobody knows the name that it has here, which an older adapter may have."""
    monkeypatch.setattr(fetch, "fetch_embedded_base", lambda *_: tiny_llama)
    adapter = build_adapter(tmp_path / "older") if goes_on else None
    if adapter is not None:
        config = json.loads((adapter / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": EMBEDDED_BASE}))
    loaded = load(EMBEDDED_BASE, adapter=adapter and str(adapter), merge_adapter=False)
    LoraWeights(loaded, LoraSettings(4, 8)).save(tmp_path / "adapter")
    saved = PeftConfig.from_pretrained(str(tmp_path / "adapter"))
    assert saved.base_model_name_or_path == "HuggingFaceTB/SmolLM2-135M-Instruct"
    load(EMBEDDED_BASE, adapter=str(tmp_path / "adapter"))


WIDE = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}


def test_a_4_bit_base_gives_true_gradients(tmp_path: Path, embedded_base: Path) -> None:
    """bitsandbytes has a product for some processors that gives none, and takes it after a first answer."""
    base = build_base(tmp_path / "wide", embedded_base, **WIDE)
    spec = ModelSpec(str(base), quantization="nf4", dtype="bfloat16", device="cpu", merge_adapter=False)
    rows = [TrainRow((5, 6, 9), (7, 8)), TrainRow((5, 6, 10), (7, 9))]
    loaded = load_model(spec, trainable=True)
    weights = LoraWeights(loaded, LoraSettings(4, 8))
    randomise(weights)
    step = GradientStep(loaded, weights, 64)
    step.add(rows)
    before = {name: master.grad.clone() for name, master in weights.masters.items()}
    logits(loaded)  # an answer between two steps
    step.reset()
    step.add(rows)
    for name, value in before.items():
        assert float(value.norm()) > 0
        assert torch.cosine_similarity(weights.masters[name].grad.flatten(), value.flatten(), dim=0) > 0.99, name


def test_a_4_bit_base_for_answers_alone_is_refused(tmp_path: Path, embedded_base: Path) -> None:
    assert import_bitsandbytes()
    from bitsandbytes.functional import has_avx512bf16

    if not has_avx512bf16():
        pytest.skip("this processor has no AVX512-BF16, so bitsandbytes has no product of its own for it")
    base = build_base(tmp_path / "wide", embedded_base, **WIDE)
    loaded = load_model(ModelSpec(str(base), quantization="nf4", dtype="bfloat16", device="cpu", merge_adapter=False))
    with pytest.raises(TrainingError, match="trainable=True"):
        LoraWeights(loaded, LoraSettings(4, 8))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"rank": True}, "rank is True"),
        ({"alpha": -1}, "alpha is -1"),
        ({"target_modules": ()}, "target_modules is"),
    ],
)
def test_shapes_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoraSettings(**settings)


def test_a_full_disk_leaves_the_old_adapter(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = LoraWeights(load(tiny_llama), LoraSettings(4, 8))
    weights.save(tmp_path / "adapter")
    before = {path.name: path.read_bytes() for path in (tmp_path / "adapter").iterdir()}

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(training_lora, "save_file", full)
    randomise(weights)
    with pytest.raises(TrainingError, match="No space left on device"):
        weights.save(tmp_path / "adapter")
    assert {path.name: path.read_bytes() for path in (tmp_path / "adapter").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_kill_between_two_renames_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "state"
    with replaced_folder(folder, {"file"}) as new:
        (new / "file").write_text("old")
    (tmp_path / "state").rename(tmp_path / ".state-old")  # as it is found after such a kill
    restore(folder)
    assert (folder / "file").read_text() == "old"
    with replaced_folder(folder, {"file"}) as new:
        (new / "file").write_text("new")
    assert (folder / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    (tmp_path / ".state.new-abc").mkdir()  # half-written
    restore(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_folder_with_other_files_is_not_replaced(tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(TrainingError, match=r"holds 'thesis\.txt', which would be lost"):
        LoraWeights(load(tiny_llama), LoraSettings(4, 8)).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_loss_that_is_not_finite_stops_and_changes_nothing(tiny_llama: Path) -> None:
    loaded = load(tiny_llama, merge_adapter=False)
    weights = LoraWeights(loaded, LoraSettings(4, 8))
    step = GradientStep(loaded, weights, 64)
    for master in weights.masters.values():
        master.fill_(float("inf"))
    weights.write()
    with pytest.raises(TrainingError, match=r"loss of a pack of 1 rows is nan.*learning rate"):
        step.add([TrainRow((5, 6), (7, 8))])
    assert step.n_rows == 0
    assert all(float(master.grad.abs().max()) == 0 for master in weights.masters.values())


def test_dropout_changes_the_gradient_and_nothing_else(tiny_llama: Path) -> None:
    loaded = load(tiny_llama, merge_adapter=False)
    weights = LoraWeights(loaded, LoraSettings(4, 8))
    randomise(weights)
    step = GradientStep(loaded, weights, 64)
    rows = [TrainRow((5, 6, 9), (7, 8))]
    clean, (silent, _) = step.add(rows), step.loss(rows)
    weights.set_dropout(0.5)
    torch.manual_seed(0)
    noisy = step.add(rows)
    assert silent == pytest.approx(clean, rel=1e-5)
    assert noisy != pytest.approx(clean, rel=1e-4)
    assert step.loss(rows)[0] == pytest.approx(clean, rel=1e-5)
