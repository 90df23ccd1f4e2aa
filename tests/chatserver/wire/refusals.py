"""How the wire refuses."""

from __future__ import annotations

import orjson
import pytest

from chatserver.errors import BadRequest


def refusal(parse, body) -> BadRequest:
    with pytest.raises(BadRequest) as error:
        parse(body)
    assert set(error.value.body) == {"message", "type", "param", "code"}
    orjson.dumps(error.value.body)
    return error.value
