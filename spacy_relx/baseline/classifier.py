"""The encoder with a classification head: loading, saving, and the forward pass.

torch and transformers are imported where they are used, so that the package can be imported without them.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_relx.baseline.markers import PairEncoder
from spacy_relx.engine.checkpoint import check_base_folder
from spacy_relx.engine.quiet import quiet_transformers
from spacy_relx.errors import ConfigError, ModelError, ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from spacy_relx.baseline.markers import EncodedPair

WEIGHTS = "baseline.safetensors"
ABOUT = "baseline.json"
DROPOUT = 0.1


@dataclass(frozen=True, slots=True)
class Classifier:
    """A model for pairs.

    Attributes:
        encoder: The transformer; its embeddings have rows for the markers.
        head: From the two marker states to one value for each class.
        pairs: Turns pairs into ids.
        classes: Names of the classes.
        pad_id: Id of padding.
        device: Where the weights are.
    """

    encoder: Any
    head: Any
    pairs: PairEncoder
    classes: tuple[str, ...]
    pad_id: int
    device: Any

    def logits(self, rows: Sequence[EncodedPair]) -> Tensor:
        """Return one value for each row and class.

        Shape: (rows, classes).
        """
        import torch

        width = max(len(row.ids) for row in rows)
        # Shape: (rows, longest row)
        ids = torch.full((len(rows), width), self.pad_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row.ids)] = torch.tensor(row.ids)
            mask[number, : len(row.ids)] = 1
        done = self.encoder(input_ids=ids.to(self.device), attention_mask=mask.to(self.device))
        states = done.last_hidden_state
        at = torch.arange(len(rows), device=self.device)
        heads, tails = (
            torch.tensor([getattr(row, name) for row in rows], device=self.device) for name in ("head_at", "tail_at")
        )
        logits: Tensor = self.head(torch.cat((states[at, heads], states[at, tails]), dim=-1).float())
        return logits

    def parameters(self) -> list[Any]:
        """Return all weights that are trained."""
        return [p for part in (self.encoder, self.head) for p in part.parameters() if p.requires_grad]

    def train(self, mode: bool) -> None:
        """Switch dropout on or off."""
        self.encoder.train(mode)
        self.head.train(mode)

    def state(self) -> dict[str, Tensor]:
        """Return a copy of all weights by name, on the processor."""
        parts = {"encoder": self.encoder, "head": self.head}
        return {
            f"{name}.{key}": value.detach().cpu().contiguous().clone()
            for name, part in parts.items()
            for key, value in part.state_dict().items()
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over weights that `state` gave."""
        for name, part in (("encoder", self.encoder), ("head", self.head)):
            part.load_state_dict({k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")})


def find_encoder(name: str, *, revision: str | None = None, local_files_only: bool = False) -> Path:
    """Return the folder of an encoder, fetching it from the Hugging Face Hub where needed.

    Raises:
        ModelNotFoundError: If it is no folder and the Hub does not give it.
        UnsafeCheckpointError: If its weights are pickles only.
    """
    from spacy_relx.hub import fetch_hub

    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelNotFoundError(f"There is no folder {name} (encoder). Expected an existing folder or a Hub name.")
    return fetch_hub(name, revision, local_files_only)


def build(
    folder: Path, *, classes: Sequence[str], types: Sequence[str], max_tokens: int, device: str, seed: int
) -> Classifier:
    """Load an encoder and put a new head on it.

    Args:
        folder: The encoder: safetensors, config and tokenizer.
        classes: Names of the classes.
        types: Entity types that get markers.
        max_tokens: Most tokens of a row.
        device: "auto", "cpu", "cuda", …
        seed: Of the new weights.

    Raises:
        ModelError: If the encoder cannot be used.
        ConfigError: If it cannot read `max_tokens`.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    from spacy_relx.engine.device import choose_device

    config = check_base_folder(folder)
    if config.get("is_encoder_decoder"):
        raise ModelError(f"{folder} is an encoder with a decoder. Expected an encoder, such as roberta-base.")
    torch.manual_seed(seed)
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
            encoder = AutoModel.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"The encoder in {folder} could not be loaded: {error}") from error
    longest = min(tokenizer.model_max_length, _n_positions(encoder, config) or tokenizer.model_max_length)
    if max_tokens > longest:
        raise ConfigError(f"max_tokens is {max_tokens}, but {folder} reads {longest} tokens. Expected no more.")
    pairs = PairEncoder(tokenizer, types, encoder.get_input_embeddings().num_embeddings, max_tokens)
    with quiet_transformers():
        encoder.resize_token_embeddings(pairs.n_ids, mean_resizing=False)
    width = encoder.config.hidden_size
    head = torch.nn.Sequential(
        torch.nn.Dropout(DROPOUT),
        torch.nn.Linear(2 * width, width),
        torch.nn.Tanh(),
        torch.nn.Dropout(DROPOUT),
        torch.nn.Linear(width, len(classes)),
    )
    at = choose_device(device)
    pad = tokenizer.pad_token_id
    return Classifier(encoder.to(at), head.to(at), pairs, tuple(classes), 0 if pad is None else pad, at)


def _n_positions(encoder: Any, config: Mapping[str, Any]) -> int | None:
    """Most tokens that an encoder has positions for; None if it sets no limit."""
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    if table is not None and padding is not None:
        # RoBERTa and its kin count positions from the one after padding's.
        return int(table.num_embeddings) - int(padding) - 1
    limit = config.get("max_position_embeddings")
    return int(limit) if isinstance(limit, int) and limit > 0 else None


def save(folder: Path, state: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write weights and what they are; a file is there whole or not at all."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    text = folder / f"{ABOUT}.part"
    text.write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    weights = folder / f"{WEIGHTS}.part"
    save_file(dict(state), weights, metadata={"format": "pt", "relx": json.dumps(about)})
    shutil.copymode(text, weights)  # safetensors are written for their owner only
    weights.replace(folder / WEIGHTS)
    text.replace(folder / ABOUT)


def load(folder: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return the weights of a folder and what they are; None if it has none.

    Raises:
        ModelError: If they are damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not (folder / WEIGHTS).is_file():
        return None
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            # What is inside the weights' own file cannot be another training's.
            about: dict[str, Any] = json.loads(file.metadata()["relx"])
            return {key: file.get_tensor(key) for key in file.keys()}, about  # noqa: SIM118 - it is no dict
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(
            f"{folder / WEIGHTS} is damaged ({type(error).__name__}: {error}). Remove the folder and train again."
        ) from error
