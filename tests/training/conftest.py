"""Fixtures for the tests of whole commands."""

import os
from collections.abc import Iterator

import pytest
from training_support.commands import Commands


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Starts `training.distill` and `training.evaluate` in processes of their own."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    started = Commands(tmp_path_factory.mktemp("commands"))
    yield started
    started.close()
