"""The architecture `spacy-relx.OpenAICompatible.v1`: a model that a server computes, in the place of one of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from thinc.api import Model

from spacy_relx.config_strings import check_config_strings
from spacy_relx.engine.remote.spec import RemoteSpec
from spacy_relx.errors import ConfigError, TrainingError
from spacy_relx.models import ask_engine
from spacy_relx.shim import EngineShim

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from spacy_relx.engine.remote.chat import ChatEngine
    from spacy_relx.engine.remote.engine import RemoteEngine
    from spacy_relx.training.settings import TrainingSettings

_ELSEWHERE = (
    "The model is a server's (spacy-relx.OpenAICompatible.v1), and its weights are not in this process. Expected "
    "spacy-relx.SmolLM2.v1, spacy-relx.Llama32GenTune.v1 or spacy-relx.CausalLM.v1 for this."
)


def build_openai_compatible(
    base_url: str,
    model: str,
    tokenizer: str | None = None,
    api_key_env: str | None = None,
    api: str = "auto",
    timeout: float = 60.0,
    total_timeout: float = 600.0,
    max_concurrency: int = 16,
    max_retries: int = 5,
    extra_body: Mapping[str, Any] | None = None,
    require_scores: bool = True,
) -> Model:
    """Create `spacy-relx.OpenAICompatible.v1`: a model behind an OpenAI-compatible server.

    With a `tokenizer`, prompts are rendered here and sent as token ids to the server's completions endpoint. That is
    the exact way: the prompts are those of a model in this process to the last token, text from documents cannot become
    a control token, and scores are the exact probabilities among the labels, for any `top_k`, also with `sequence`
    scoring. It needs vLLM or llama.cpp: they take token ids, and can be asked about given tokens.

    Without one, the chat endpoint is asked: the server renders the prompt, is kept to the labels by its structured
    output, and writes one. That is for servers that can no more (TGI, hosted APIs), with what they cannot give refused:
    `top_k` above 1 and `sequence` scoring. The score is a lower bound, from the likeliest tokens that the server
    reports: close for a model that was tuned to answer with labels, far too low for one that would rather chat. What a
    control token's text in a document does is up to the server.

    Args:
        base_url: Address of the API, such as `http://localhost:8000/v1`; http or https.
        model: The name by which the server knows the model; with a LoRA adapter in vLLM, the adapter's name.
        tokenizer: The served model's tokenizer: a Hub name, a local folder, a GGUF file, or `SmolLM2-135M-Instruct`.
        api_key_env: The environment variable that holds the key. The key itself is in no config, pickle or log.
        api: "vllm", "llama_cpp", "tgi" or "openai"; "auto" asks the server.
        timeout: Seconds that one attempt may take.
        total_timeout: Seconds that one request may take with all its attempts.
        max_concurrency: Most requests under way at once.
        max_retries: Attempts after the first, where the server is busy, fails, or answers what it was not asked.
        extra_body: Further fields of every request, such as vLLM's `priority`.
        require_scores: Whether a server that gives no log-probabilities is an error. If false, chat answers have the
            score 1.0, which says nothing, and log-probabilities are not asked for.

    Raises:
        ConfigError: If a setting is not usable. Nothing is connected to here.
    """
    for name, value in (
        *(("base_url", base_url), ("model", model), ("tokenizer", tokenizer)),
        *(("api_key_env", api_key_env), ("extra_body", extra_body)),
    ):
        check_config_strings(value, f"model.{name}")
    spec = RemoteSpec(
        base_url=base_url,
        model=model,
        tokenizer=tokenizer,
        api_key_env=api_key_env,
        api=api,  # type: ignore[arg-type]
        timeout=timeout,
        total_timeout=total_timeout,
        max_concurrency=max_concurrency,
        max_retries=max_retries,
        extra_body={} if extra_body is None else extra_body,
        require_scores=require_scores,
    )
    return Model("relx_engine", ask_engine, shims=[RemoteShim(spec)])


class RemoteShim(EngineShim):
    """Stands for a served model in a thinc model: connects at first use, and holds nothing but the settings.

    Args:
        spec: Where the model is and how it is asked.
    """

    spec: RemoteSpec  # type: ignore[assignment]

    def __init__(self, spec: RemoteSpec) -> None:
        super().__init__(spec)  # type: ignore[arg-type]

    @property
    def notice(self) -> None:
        """None: no weights go with a saved pipeline."""

    @property
    def computing_engine(self) -> NoReturn:
        """The engine for those who look inside the model, which cannot be had."""
        raise ConfigError(_ELSEWHERE)

    def check_use(self, top_k: int, scoring: str, decoding: str) -> None:
        """Refuse what cannot be had from the server's chat endpoint.

        Raises:
            ConfigError: If more than the best label, or `sequence` scoring, is wanted without the model's tokenizer.
        """
        self.spec.check_use(top_k, scoring, decoding)

    def use_adapter(self, folder: Path) -> NoReturn:
        """Raise the error that an adapter is loaded by the server."""
        raise ConfigError(
            f"There is an adapter in {folder}. {_ELSEWHERE} Or load it in the server, without that folder."
        )

    def start_training(self, settings: TrainingSettings) -> NoReturn:
        """Raise the error that a served model cannot be trained."""
        raise TrainingError(_ELSEWHERE)

    def adapter_files(self) -> dict[str, bytes]:
        """Nothing: an adapter is the server's."""
        return {}

    def _prepare_process(self) -> None:
        """Nothing: no torch computes here."""

    def _load(self) -> RemoteEngine | ChatEngine:
        from spacy_relx.engine.remote.connect import connect

        return connect(self.spec)
