"""Whatever a request holds, the server answers as its description says, and goes on."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.support.review_scene import CONFIG

import semicdvl as cd

HEADERS = {"Authorization": f"Bearer {CONFIG.token}", "Host": "127.0.0.1:8765"}
CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
BOUNDED = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
REAL = {"pair": "out", "number": 1, "rank": 0, "name": "r00000_c00000"}
"""What the parameters of a path are in every other request, so that these get behind the first refusal."""


@pytest.mark.parametrize("label", [False, True], ids=["review", "label"])
def test_every_answer_is_as_described(scene, tmp_path, label) -> None:
    out = shutil.copytree(scene, tmp_path / "out")
    app = cd.create_review_app(out, config=dataclasses.replace(CONFIG, label=label))
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app, headers=HEADERS)
    seen: Counter[int] = Counter()
    for result in schema.get_all_operations():
        operation = result.ok()
        if ("/labels" in operation.path) == label:
            _fuzz(operation, seen)
    assert seen[200] > 10 and seen.total() > 50 and not any(status >= 500 for status in seen)


def _fuzz(operation: Any, seen: Counter[int]) -> None:
    """Ask with generated requests."""
    asked = 0

    @BOUNDED
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        nonlocal asked
        asked += 1
        if asked % 2:
            case.path_parameters.update({name: REAL[name] for name in REAL if name in case.path_parameters})
        response = case.call(headers=HEADERS)
        seen[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    ask()
