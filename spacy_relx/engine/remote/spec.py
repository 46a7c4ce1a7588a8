"""Where a served model is and how it is asked. Plain data; nothing is connected to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from spacy_relx.errors import ConfigError

Api = Literal["auto", "vllm", "llama_cpp", "tgi", "openai"]
APIS = ("auto", "vllm", "llama_cpp", "tgi", "openai")

#: Dialects whose completions endpoint takes token ids and can be asked for the probabilities of given tokens.
TOKEN_APIS = ("vllm", "llama_cpp")

#: What a request says by itself; `extra_body` adds to it and must not change it.
_OWN_FIELDS = frozenset(
    {
        *("model", "prompt", "messages", "stream", "n", "echo", "stop", "stop_token_ids", "temperature", "samplers"),
        *("max_tokens", "max_completion_tokens", "n_predict", "logprobs", "top_logprobs", "n_probs", "logit_bias"),
        *("allowed_token_ids", "logprob_token_ids", "return_tokens_as_token_ids", "post_sampling_probs"),
        *("repetition_penalty", "top_k", "top_p", "min_p"),
        *("response_format", "grammar", "guided_choice", "structured_outputs", "chat_template_kwargs"),
    }
)


@dataclass(frozen=True, slots=True)
class RemoteSpec:
    """Everything that decides what a server is asked, but for its key, which stays in the environment.

    Attributes:
        base_url: Address of the API, such as `http://localhost:8000/v1`.
        model: The name by which the server knows the model; with a LoRA adapter in vLLM, the adapter's.
        tokenizer: A Hub name, a local folder, a GGUF file or `SmolLM2-135M-Instruct`: prompts are then rendered here
            and sent as token ids. None: the server renders them.
        api_key_env: The environment variable that holds the key; None: no key is sent.
        api: The server's dialect; "auto" asks the server.
        timeout: Seconds that one attempt may take, its answer included.
        total_timeout: Seconds that one request may take, with its retries and the pauses between them.
        max_concurrency: Most requests under way at once.
        max_retries: Attempts after the first.
        extra_body: Further fields of every request.
        require_scores: Whether a server that gives no log-probabilities is an error.

    Raises:
        ConfigError: If a value cannot be used.
    """

    base_url: str
    model: str
    tokenizer: str | None = None
    api_key_env: str | None = None
    api: Api = "auto"
    timeout: float = 60.0
    total_timeout: float = 600.0
    max_concurrency: int = 16
    max_retries: int = 5
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    require_scores: bool = True

    def __post_init__(self) -> None:
        _check_url(self.base_url)
        for name, value in (("model", self.model), ("tokenizer", self.tokenizer), ("api_key_env", self.api_key_env)):
            if not (isinstance(value, str) and value.strip()) and not (value is None and name != "model"):
                raise ConfigError(
                    f"model.{name} is {value!r}. Expected a name{'' if name == 'model' else ', or null'}."
                )
        if self.api not in APIS:
            raise ConfigError(f"model.api is {self.api!r}. Expected one of {', '.join(APIS)}.")
        for name, seconds in (("timeout", self.timeout), ("total_timeout", self.total_timeout)):
            number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
            if not number or not math.isfinite(seconds) or seconds <= 0:
                raise ConfigError(f"model.{name} is {seconds!r}. Expected a number of seconds above 0.")
        for name, count, least in (("max_concurrency", self.max_concurrency, 1), ("max_retries", self.max_retries, 0)):
            if isinstance(count, bool) or not isinstance(count, int) or count < least:
                raise ConfigError(f"model.{name} is {count!r}. Expected a whole number of at least {least}.")
        if not isinstance(self.extra_body, Mapping):
            raise ConfigError(f"model.extra_body is {self.extra_body!r}. Expected a mapping, or null.")
        own = sorted(_OWN_FIELDS & set(self.extra_body))
        if own:
            raise ConfigError(
                f"model.extra_body has {', '.join(own)}, which a request says by itself. Expected other fields of the "
                "server's API; what the model is asked is set in the component."
            )
        if not isinstance(self.require_scores, bool):
            raise ConfigError(f"model.require_scores is {self.require_scores!r}. Expected true or false.")
        if self.tokenizer is not None and self.api not in ("auto", *TOKEN_APIS):
            refuse_tokenizer(self.api)

    @property
    def root_url(self) -> str:
        """The address without the API's version: where servers say what they are."""
        return self.base_url.rstrip("/").removesuffix("/v1")

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine."""
        host = urlsplit(self.base_url).hostname or ""
        return host in ("localhost", "::1") or host.startswith("127.")

    def check_use(self, top_k: int, scoring: str, decoding: str = "constrained") -> None:
        """Refuse what cannot be had without the tokenizer.

        Raises:
            ConfigError: If more than the best label, or `sequence` scoring, is wanted where the server renders prompts.
        """
        if self.tokenizer is not None or decoding == "free":
            return
        for what, wanted in ((f"top_k is {top_k}", top_k > 1), (f"scoring is {scoring!r}", scoring == "sequence")):
            if wanted:
                raise ConfigError(
                    f"{what}, but model.tokenizer is null, so the server writes one label and is not asked about the "
                    'others. Expected top_k=1 and scoring="trie", or model.tokenizer: the name or folder of the '
                    "model's tokenizer, with a server (vLLM, llama.cpp) that takes token ids."
                )

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as plain values. There is no key among them."""
        return asdict(self)


def refuse_tokenizer(api: str) -> None:
    """Raise the error that a dialect takes no token ids.

    Raises:
        ConfigError: Always.
    """
    raise ConfigError(
        f"model.tokenizer is set, but the API {api!r} takes no token ids. Expected a server with the API "
        f"{' or '.join(TOKEN_APIS)}; or set model.tokenizer to null, and the server renders the prompts."
    )


def _check_url(url: Any) -> None:
    expected = "Expected an address such as 'http://localhost:8000/v1'."
    try:
        parts = urlsplit(cast("str", url))
        _ = parts.port
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"model.base_url cannot be read as an address: {error}. {expected}") from error
    if not isinstance(url, str) or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"model.base_url is {url!r}. {expected}")
    if any(char.isspace() or not char.isprintable() for char in url):  # urlsplit passes over some of them
        raise ConfigError(f"model.base_url is {url!r}, with white space or characters that nobody sees. {expected}")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        # It is not repeated here: what it has there may be a secret.
        raise ConfigError(
            f"model.base_url has a user, a query or a fragment. {expected} A key belongs into an environment variable, "
            "whose name is model.api_key_env; other settings into model.extra_body."
        )
