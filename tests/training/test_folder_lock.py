"""One process at a time in a run's folder, however its predecessor ended."""

import os
import platform
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from training import folder_lock
from training.disk import OutputError
from training.folder_lock import lock

HOLD = """
import sys, time
from training.folder_lock import lock
with lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""
GRAB = """
import os, sys, time
from training.disk import OutputError
from training.folder_lock import lock
print("ready", flush=True)
sys.stdin.readline()
try:
    with lock(sys.argv[1]):
        handle = os.open(os.path.join(sys.argv[1], "inside"), os.O_CREAT | os.O_EXCL)
        print("held", flush=True)
        sys.stdin.readline()
        os.close(handle)
        os.unlink(os.path.join(sys.argv[1], "inside"))
except OutputError:
    print("refused", flush=True)
"""


@pytest.fixture
def process():
    """Starts Python programs; ends them after the test."""
    started = []

    def start(program, folder):
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-c", program, str(folder)]
        child = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()


def lock_name(pid: int, host: str | None = None, began: str = "5") -> str:
    return f"running-{host or folder_lock._host()}-{pid}-{began}-00c0ffee.lock"


def test_the_folder_is_free_again_after_the_block_and_after_an_error(tmp_path):
    with lock(tmp_path):
        assert len(os.listdir(tmp_path)) == 1
    with pytest.raises(ZeroDivisionError), lock(tmp_path):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_a_second_process_is_refused_until_the_first_has_ended_even_by_sigkill(process, tmp_path):
    first = process(HOLD, tmp_path)
    assert first.stdout.readline() == "held\n"
    with pytest.raises(OutputError) as error, lock(tmp_path):
        pass
    (file,) = tmp_path.iterdir()
    words = str(error.value)
    assert f"in use by process {first.pid} on this machine" in words and f"delete {file}" in words
    first.kill()
    if Path("/proc").is_dir():  # where a killed process that nobody has waited for yet can be told
        wait_until(lambda: folder_lock._began(first.pid) is None)
    else:
        first.wait()
    with lock(tmp_path):
        assert not file.exists()
    assert os.listdir(tmp_path) == []


def wait_until(condition, limit=5):
    until = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_of_several_that_come_at_once_to_a_stale_lock_exactly_one_gets_in(process, tmp_path):
    (tmp_path / lock_name(pid=2**22 + 1)).touch()
    children = [process(GRAB, tmp_path) for _ in range(6)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    answers = [child.stdout.readline() for child in children]
    assert sorted(answers) == ["held\n"] + ["refused\n"] * 5


def test_threads_never_hold_one_folder_together(tmp_path):
    inside, most, entered = [], [], []

    def run():
        for _ in range(4):
            try:
                with lock(tmp_path):
                    inside.append(1)
                    most.append(len(inside))
                    entered.append(1)
                    time.sleep(0.002)
                    inside.pop()
            except OutputError:
                pass

    threads = [threading.Thread(target=run) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert set(most) == {1} and len(entered) >= 4
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc for the time a process began")
def test_a_new_process_with_the_old_ones_number_does_not_keep_the_folder(tmp_path):
    (tmp_path / lock_name(pid=os.getpid(), began="5")).touch()
    with lock(tmp_path):
        assert len(os.listdir(tmp_path)) == 1


@pytest.mark.skipif(os.name == "nt", reason="there an open file tells")
def test_where_the_time_it_began_is_not_known_a_living_process_keeps_the_folder(tmp_path):
    (tmp_path / lock_name(pid=os.getpid(), began="0")).touch()
    with pytest.raises(OutputError, match="in use by process"), lock(tmp_path):
        pass


def test_a_lock_of_another_machine_is_left_alone_and_named(tmp_path):
    file = tmp_path / lock_name(pid=2**22 + 1, host="another-host.example")
    file.touch()
    with pytest.raises(OutputError) as error, lock(tmp_path):
        pass
    assert "on another-host.example, as far as can be told from here" in str(error.value)
    assert f"delete {file}" in str(error.value) and os.listdir(tmp_path) == [file.name]
    file.unlink()
    with lock(tmp_path):
        pass


def test_odd_host_names_and_foreign_files_do_no_harm(tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: "a/b c-7\n" * 40)
    (tmp_path / "running-late.lock").touch()
    with lock(tmp_path), ExitStack() as stack, pytest.raises(OutputError, match="on this machine"):
        stack.enter_context(lock(tmp_path))
    assert os.listdir(tmp_path) == ["running-late.lock"]


def test_a_folder_that_cannot_be_written_is_an_error_for_people(tmp_path):
    with pytest.raises(OutputError, match="No such file"), lock(tmp_path / "gone"):
        pass
