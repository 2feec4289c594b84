"""What every test run has: lines told at its end, and who runs what where pytest-xdist shares the tests out."""

from __future__ import annotations

import os

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):  # they share the cores; torch asks when it is loaded
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

import pytest
import told

ALONE = ("tests/browser/", "tests/host/")  # folders whose tests share a running server, and so a process


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """One process for a server's tests, and one for each other file, whose fixtures its tests share."""
    from xdist.scheduler import LoadScopeScheduling

    class ByServerAndFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next(filter(nodeid.startswith, ALONE), nodeid.partition("::")[0])

    return ByServerAndFile(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["told"] = told.lines()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error) -> None:
    for line in getattr(node, "workeroutput", {}).get("told", []):
        told.tell(line)


def pytest_terminal_summary(terminalreporter) -> None:
    for line in told.lines():
        terminalreporter.write_line(line)
