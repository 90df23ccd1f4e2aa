"""What the OpenAPI document says is what the server answers: requests made from it, by schemathesis and hypothesis.

No operation has a `default` answer, so a status, a type, a field or a header that is not described is found.
"""

from __future__ import annotations

import copy
import time

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.openapi.checks import (
    JsonSchemaError,
    MissingHeaders,
    UndefinedContentType,
    UndefinedStatusCode,
)
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
)
SECONDS = 45.0
"""For all operations together."""
EXAMPLES = 12


MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


@pytest.fixture(scope="module")
def document(program):
    """The document, as it is served."""
    return httpx.get(f"{program.url}/openapi.json", timeout=60).json()


@pytest.fixture(scope="module")
def operations(program, document):
    """All operations of the document."""
    return operations_of(document, program.url)


def operations_of(document: dict, url: str) -> list:
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=url)
    return [result.ok() for result in schema.get_all_operations()]


def _without_a_status(document: dict) -> None:
    del document["paths"]["/v1/responses/{response_id}"]["get"]["responses"]["404"]


def _without_a_type(document: dict) -> None:
    document["components"]["responses"]["404"]["content"] = {"text/html": {"schema": {"type": "string"}}}


def _with_another_field(document: dict) -> None:
    document["components"]["schemas"]["Error"]["required"].append("hint")


def _with_another_header(document: dict) -> None:
    document["components"]["responses"]["404"]["headers"]["x-hint"] = {
        "required": True,
        "schema": {"type": "string"},
    }


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_without_a_status, UndefinedStatusCode),
        (_without_a_type, UndefinedContentType),
        (_with_another_field, JsonSchemaError),
        (_with_another_header, MissingHeaders),
    ],
)
def test_a_difference_is_found(program, document, change, told):
    """The checks below mean something: with one thing changed in the document, a 404 is not as described."""
    changed = copy.deepcopy(document)
    change(changed)
    operation = next(
        o for o in operations_of(changed, program.url) if o.label == "GET /v1/responses/{response_id}"
    )
    with pytest.raises(FailureGroup) as found:
        operation.Case(path_parameters={"response_id": "resp_x"}).call_and_validate(checks=CHECKS, timeout=60)
    assert [type(failure) for failure in found.value.exceptions] == [told]


def test_no_server_error_and_no_undocumented_answer(program, operations):
    """Every operation: status, type and body are documented, none is a server error; each is also seen to succeed.

    Streams have tests of their own: here an answer has to end by itself.
    """
    assert len(operations) > 20
    deadline = time.monotonic() + SECONDS
    statuses: dict[str, set[int]] = {}
    for operation in operations:
        share = (deadline - time.monotonic()) / (len(operations) - len(statuses))
        statuses[operation.label] = _ask(operation, program.url, time.monotonic() + share)
    unseen = {label for label, seen in statuses.items() if 200 not in seen}
    assert not unseen, {label: statuses[label] for label in unseen}
    assert httpx.get(f"{program.url}/readyz", timeout=60).status_code == 200
    logs = [log.read_text(errors="replace") for log in (program.data_dir / "logs").glob("*.log")]
    assert logs and "Traceback" not in "".join(logs)


def _ask(operation, url: str, until: float) -> set[int]:
    """Make requests of one operation until the time is over, right ones and wrong ones; return the statuses."""
    seen: set[int] = set()
    known = _things(url)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in MODES)), real=st.booleans()
    )
    def ask(case, real) -> None:
        if 200 in seen and len(seen) > 1 and time.monotonic() > until:
            return
        _let_end(case)
        if real:
            _mean(case, known)
        seen.add(case.call_and_validate(checks=CHECKS, timeout=60).status_code)

    ask()
    return seen


def _things(url: str) -> dict[str, str]:
    """Things that are there, by the names of their path parameters."""
    answer = httpx.post(
        f"{url}/v1/responses", json={"input": "Hi", "max_output_tokens": 5}, timeout=60
    ).json()
    return {
        "response_id": answer["id"],
        "conversation_id": answer["conversation"]["id"],
        "item_id": answer["output"][0]["id"],
        "model": "scripted",
    }


def _let_end(case) -> None:
    """Ask for no stream, and for nothing that goes on behind the answer."""
    for sent in (case.body, case.query):
        if isinstance(sent, dict):
            sent.pop("stream", None)
            sent.pop("background", None)


def _mean(case, known: dict[str, str]) -> None:
    """Make a request one that a client would send: about things that are there, without names that nobody knows."""
    if case.path_parameters:
        case.path_parameters.update({name: known[name] for name in case.path_parameters})
    if case.query:
        case.query.clear()
    if not isinstance(case.body, dict):
        return
    case.body.clear()
    case.body.update(_MEANT.get(case.operation.path.removeprefix("/v1"), {}))


MESSAGE = {"role": "user", "content": "Hello"}
_MEANT = {
    "/responses": {"input": "Hello", "max_output_tokens": 5},
    "/responses/input_tokens": {"input": "Hello"},
    "/chat/completions": {"model": "scripted", "messages": [MESSAGE], "max_tokens": 5},
    "/beta/chat/completions": {"model": "scripted", "messages": [MESSAGE], "max_tokens": 5},
    "/conversations/{conversation_id}": {"metadata": {"topic": "tests"}},
    "/conversations/{conversation_id}/items": {"items": [MESSAGE]},
}
