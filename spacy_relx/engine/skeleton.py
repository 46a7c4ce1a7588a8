"""A model's shape without its weights: its configuration, and the names and sizes of its layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from spacy_relx.engine.adapter import Layers
from spacy_relx.engine.checkpoint import check_base_folder
from spacy_relx.engine.quiet import quiet_transformers
from spacy_relx.errors import ModelError, UnsafeCheckpointError

if TYPE_CHECKING:
    from pathlib import Path


def load_config(base: Path) -> Any:
    """Read a model's configuration with the classes of transformers only, never the repository's."""
    from transformers import CONFIG_MAPPING, AutoConfig

    written = check_base_folder(base)
    kind = written.get("model_type")
    if kind not in CONFIG_MAPPING:
        if written.get("auto_map"):
            raise UnsafeCheckpointError(
                f"{base} is of the type {kind!r} and brings program code of its own, which is not run. Expected an "
                "architecture that transformers knows."
            )
        raise ModelError(f"{base} is of the type {kind!r}, which this transformers does not know; update it.")
    return AutoConfig.from_pretrained(base, trust_remote_code=False, local_files_only=True)


def build_skeleton(base: Path) -> Any:
    """Build the model without weights (on the meta device), to learn its layers' names and shapes."""
    from transformers import AutoModelForCausalLM

    with quiet_transformers(), torch.device("meta"):
        return AutoModelForCausalLM.from_config(load_config(base), trust_remote_code=False)


def layers_of(model: Any) -> Layers:
    """List the layers of an unquantised model, for `verify_adapter`."""
    names = {module: name for name, module in model.named_modules()}
    return Layers(
        linear={
            name: (module.out_features, module.in_features)
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear)
        },
        parameters={name: tuple(p.shape) for name, p in model.named_parameters()},
        tied=bool(getattr(model.config, "tie_word_embeddings", False)),
        output=names.get(model.get_output_embeddings(), "lm_head"),
        embedding=names.get(model.get_input_embeddings(), "model.embed_tokens"),
    )
