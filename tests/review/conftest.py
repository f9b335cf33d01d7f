"""A reviewed map that every test gets a copy of."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from tests.support.review_scene import open_client, write_result


@pytest.fixture(scope="session")
def scene(tmp_path_factory) -> Path:
    return write_result(tmp_path_factory.mktemp("scene"))


@pytest.fixture
def out(scene, tmp_path) -> Path:
    return Path(shutil.copytree(scene, tmp_path / "out"))


@pytest.fixture
def client(out) -> Iterator[TestClient]:
    with open_client(out) as opened:
        yield opened
