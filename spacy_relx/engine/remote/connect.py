"""From a `RemoteSpec` to an engine: which server it is, whether it has the model and the same tokens."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from spacy_relx.engine.remote.base import RemoteModel
from spacy_relx.engine.remote.chat import ChatEngine
from spacy_relx.engine.remote.client import Client
from spacy_relx.engine.remote.dialects import LlamaCpp, Vllm
from spacy_relx.engine.remote.engine import RemoteEngine
from spacy_relx.engine.remote.spec import TOKEN_APIS, refuse_tokenizer
from spacy_relx.engine.remote.template import ServerTemplate
from spacy_relx.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spacy_relx.engine.remote.dialects import TokenDialect
    from spacy_relx.engine.remote.spec import RemoteSpec

_DIALECTS: dict[str, type[TokenDialect]] = {"vllm": Vllm, "llama_cpp": LlamaCpp}

#: By whom a server says its models are owned.
_OWNERS = {"vllm": "vllm", "llamacpp": "llama_cpp"}

#: What servers say about a model that changes from one moment to the next.
_PASSING_FACTS = frozenset({"created", "permission"})

#: From this version on, vLLM takes the allowed answers in `structured_outputs`.
_VLLM_STRUCTURED = (0, 11)

#: What most tokenizers that are not the same read differently.
_PROBE = "Łukasz wrote: “naïve café” costs 1,234.50€ - <|im_end|> isn't a\n\tword… 東京"


def connect(spec: RemoteSpec) -> RemoteEngine | ChatEngine:
    """Find out how a served model is to be asked, and make the engine that does.

    Raises:
        ConfigError: If httpx is missing, or the server cannot do what is set.
        ModelError: If the tokenizer cannot be had.
        ServerError: If the server cannot be reached, refuses the key, does not have the model, or reads text otherwise.
    """
    client = Client(spec)
    served = _served(client)
    api = _api(client, served) if spec.api == "auto" else spec.api
    if spec.tokenizer is not None and api not in TOKEN_APIS:
        refuse_tokenizer(api)
    # llama.cpp has one model and answers to any name.
    if served and api != "llama_cpp" and spec.model not in served:
        raise ServerError(
            f"The server at {spec.base_url} has no model {spec.model!r}. Expected for model.model one of: "
            f"{client.shown(', '.join(sorted(served)[:20]))}.",
            for_all=True,
        )
    facts = served.get(spec.model) or (next(iter(served.values())) if len(served) == 1 else {})
    identity = {
        "server": spec.base_url.rstrip("/"),
        "model": spec.model,
        "said of it": {name: value for name, value in facts.items() if name not in _PASSING_FACTS},
        "api": api,
        "extra_body": dict(spec.extra_body),
        "scores": spec.require_scores,
    }
    fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
    if spec.tokenizer is None:
        loaded = RemoteModel(ServerTemplate(), identity, fingerprint)
        return ChatEngine(client, loaded, api, _choice_field(client) if api == "vllm" else "")
    from spacy_relx.engine.loading import load_tokenizer
    from spacy_relx.engine.spec import ModelSpec

    dialect = _DIALECTS[api]()
    tokenizer = load_tokenizer(ModelSpec(spec.tokenizer))
    _check_tokenizer(client, dialect, tokenizer)
    return RemoteEngine(client, RemoteModel(tokenizer, identity, fingerprint), dialect)


def _served(client: Client) -> dict[str, dict[str, Any]]:
    """What the server says about its models, by their names; nothing where it says nothing."""
    answer = client.find(f"{client.spec.base_url.rstrip('/')}/models")
    models = answer.get("data") if isinstance(answer, dict) else None
    return {str(m["id"]): m for m in models or () if isinstance(m, dict) and "id" in m}


def _api(client: Client, served: Mapping[str, Mapping[str, Any]]) -> str:
    for facts in served.values():
        owner = str(facts.get("owned_by"))
        if owner in _OWNERS:
            return _OWNERS[owner]
    info = client.find(f"{client.spec.root_url}/info")
    return "tgi" if isinstance(info, dict) and "max_total_tokens" in info else "openai"


def _choice_field(client: Client) -> str:
    answer = client.find(f"{client.spec.root_url}/version")
    found = re.match(r"(\d{1,9})\.(\d{1,9})", str(answer.get("version"))) if isinstance(answer, dict) else None
    old = found is not None and (int(found[1]), int(found[2])) < _VLLM_STRUCTURED
    return "guided_choice" if old else "structured_outputs"


def _check_tokenizer(client: Client, dialect: TokenDialect, tokenizer: Any) -> None:
    """Compare with the server's own tokenizer, where it can be asked.

    Raises:
        ServerError: If it gives other ids for the same text.
    """
    spec = client.spec
    # vLLM reads control tokens in any text, so there the probe has none.
    probe = _PROBE if dialect.name == "llama_cpp" else _PROBE.replace("<|im_end|>", "")
    answer = client.find(f"{spec.root_url}/tokenize", dialect.tokenize(spec.model, probe))
    tokens = answer.get("tokens") if isinstance(answer, dict) else None
    own = tokenizer(probe, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    if isinstance(tokens, list) and tokens != list(own):
        raise ServerError(
            f"The server at {spec.base_url} makes other tokens of a text than the tokenizer {spec.tokenizer!r} does. "
            f"Expected for model.tokenizer the one of the model that is served as {spec.model!r}.",
            for_all=True,
        )
