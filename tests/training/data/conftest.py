"""Caches of these tests have several blocks, of four each."""

import pytest

from training.data import plan


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    for name in ("PICTURES_PER_BLOCK", "PROMPTS_PER_BLOCK", "TEXTS_PER_BLOCK"):
        monkeypatch.setattr(plan, name, 4)
