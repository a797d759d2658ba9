"""The API against its own description, by schemathesis: right and wrong questions, with a token and without."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from web_made import RUN, SECRET, name_of

from lapse.web.api import CALLS, document

if TYPE_CHECKING:
    from lapse.web.house import House

EXAMPLES = 25
"""Cases of one call and one sort: all together stay within a few seconds."""

REAL = {"key": name_of(0), "run": RUN}


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
def test_every_call_keeps_its_word(mode: GenerationMode, address: str, house: House) -> None:
    schema = schemathesis.openapi.from_dict(json.loads(document()))
    token = {"Authorization": f"Bearer {house.tokens.add('ann', 'admin')}"}
    for call in CALLS:
        before = house.seq()
        _ask(schema[call.path]["POST" if call.post else "GET"], mode, address, token)
        assert call.post or house.seq() == before, "who reads writes nothing"


def _ask(operation: Any, mode: GenerationMode, address: str, token: dict[str, str]) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode), real=st.booleans())
    def asks(case: Any, *, real: bool) -> None:
        if real and case.path_parameters:
            case.path_parameters.update({n: v for n, v in REAL.items() if n in case.path_parameters})
        reply = case.call_and_validate(base_url=address, headers=token)
        assert SECRET not in reply.text

    asks()
