"""The service against its own OpenAPI description: no request that it allows or forbids makes the service fail.

`make fuzz-http` does the same with many more requests.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from service import Service, scripted_pipeline, serving

from spacy_relx.serving.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACES = ["POST /relations", "GET /health", "GET /health/ready", "GET /metrics"]
ALLOWED, FORBIDDEN = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
# Nothing can be sent with a GET that would be wrong.
KINDS = [(place, ALLOWED) for place in PLACES] + [(place, FORBIDDEN) for place in PLACES if place.startswith("POST")]
N_EXAMPLES = int(os.environ.get("FUZZ_HTTP_EXAMPLES", "8"))

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def fuzzed(tokenizer: Any) -> Iterator[Service]:
    nlp, _ = scripted_pipeline(tokenizer, lambda head, tail: {"founded_by": 0.9, "works_for": 0.8})
    with serving(nlp, Limits(max_documents=4, max_chars=200, max_wait_ms=0)) as running:
        yield running


@pytest.mark.parametrize(("place", "mode"), KINDS, ids=[f"{place}, {mode.value}" for place, mode in KINDS])
def test_the_service_is_what_it_says(fuzzed: Service, place: str, mode: GenerationMode) -> None:
    method, path = place.split()
    operation = schemathesis.openapi.from_url(f"{fuzzed.url}/openapi.json")[path][method]

    @settings(max_examples=N_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: schemathesis.Case) -> None:
        response = case.call_and_validate()
        seen.add(response.status_code)

    seen: set[int] = set()
    run()
    assert seen <= ({200} if mode is ALLOWED else {400, 413, 415, 422})
    assert fuzzed.client.get("/health/ready").status_code == 200


def test_every_operation_is_fuzzed(fuzzed: Service) -> None:
    paths = fuzzed.client.get("/openapi.json").json()["paths"]
    assert {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods} == set(PLACES)
