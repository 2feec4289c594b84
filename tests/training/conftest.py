"""Fixtures for the tests of whole commands."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from training_support.commands import MINI, Commands, without
from training_support.pretrained import model_words, write_pictures, write_small_checkpoint
from training_support.runs import tensors_in


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Starts `training.distill` and `training.evaluate` in processes of their own."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    started = Commands(tmp_path_factory.mktemp("commands"))
    yield started
    started.close()


@pytest.fixture(scope="session")
def whole(commands, tmp_path_factory) -> dict:
    """The weights of a mini run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    done = commands.run(*MINI, "--output", "run", cwd=folder, faults=[without("training.evaluate.evaluate")])
    assert done.status == 0, done
    return tensors_in(folder / "run")


@pytest.fixture(scope="session")
def sd15(tmp_path_factory) -> Path:
    """A random checkpoint of a small Stable Diffusion 1.5; its configs beside it."""
    return write_small_checkpoint(tmp_path_factory.mktemp("sd15"))


@pytest.fixture(scope="session")
def cats(tmp_path_factory) -> Path:
    """A folder of pictures with captions."""
    return write_pictures(tmp_path_factory.mktemp("cats"))


@pytest.fixture(scope="session")
def pretrained(commands, sd15, cats, tmp_path_factory) -> Path:
    """The folder that holds a run of `sd15` on `cats`, ``run``, and its cache, which nothing interrupted."""
    folder = tmp_path_factory.mktemp("pretrained")
    done = commands.run(*model_words(sd15), "--images", cats, "--output", "run", cwd=folder)
    assert done.status == 0 and "Traceback" not in done.err, done
    return folder
