"""A detection result that the tests of evaluation share."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.reference_maps import (
    FOUND,
    detected,
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detected(tmp_path_factory.mktemp("truth"), FOUND)
