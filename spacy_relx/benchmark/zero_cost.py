"""A model that answers at once, so that what is left is everything around it: pairs, prompts, trees, search, results.

The packed engine runs as it is, on a decoder that looks each token up in a table.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from spacy_relx.engine.packed import PackedEngine

#: Numbers a token is known by; enough that answers differ, few enough to cost nothing.
_HIDDEN = 16

#: Spread of the output's logits. At this one the search meets about as many open prefixes as with a trained model.
_SPREAD = 2.0


def zero_cost_engine(
    tokenizer: PreTrainedTokenizerBase, max_pack_tokens: int | None = None, seed: int = 0
) -> PackedEngine:
    """Make a packed engine around a model that costs nothing.

    Args:
        tokenizer: The tokenizer of the model that it stands for.
        max_pack_tokens: Most tokens of a pack; None: as on a processor.
        seed: Of the random answers.
    """
    import torch

    from spacy_relx.engine.loading import LoadedModel
    from spacy_relx.engine.packed import PackedEngine
    from spacy_relx.engine.spec import ModelSpec

    loaded = LoadedModel(
        model=_model(len(tokenizer), seed),
        tokenizer=tokenizer,
        spec=ModelSpec("zero-cost"),
        device=torch.device("cpu"),
        dtype=torch.float32,
        fingerprint="0" * 64,
        base_fingerprint="0" * 32,
    )
    return PackedEngine(loaded, max_pack_tokens)


def _model(vocabulary: int, seed: int) -> Any:
    import torch

    generator = torch.Generator().manual_seed(seed)

    class Decoder(torch.nn.Module):
        """Looks tokens up; attends to nothing."""

        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Parameter(torch.randn(vocabulary, _HIDDEN, generator=generator), requires_grad=False)

        def forward(self, input_ids: Any, **_: Any) -> Any:
            return SimpleNamespace(last_hidden_state=self.table[input_ids])

    class Model(torch.nn.Module):
        """What the packed engine asks of a causal language model."""

        def __init__(self) -> None:
            super().__init__()
            self.config = SimpleNamespace(max_position_embeddings=None)
            self.decoder = Decoder()
            self.output = torch.nn.Linear(_HIDDEN, vocabulary, bias=False)
            self.output.weight.data = _SPREAD / _HIDDEN**0.5 * torch.randn(vocabulary, _HIDDEN, generator=generator)
            self.requires_grad_(False)

        def get_decoder(self) -> Any:
            return self.decoder

        def get_output_embeddings(self) -> Any:
            return self.output

        def set_attn_implementation(self, _: str) -> None:
            """There is no attention."""

    return Model().eval()
