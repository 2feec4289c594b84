"""Vectors of many pictures in a file: written and read in parts, in memory that does not grow with their number."""

import resource
import subprocess
import sys

import numpy as np
import pytest
from training_support.commands import environment

from training.disk import OutputError
from training.evaluation import rows


@pytest.mark.parametrize("shape", [(7,), (7, 3)])
def test_what_was_written_is_read_by_numpy_and_in_parts(tmp_path, shape):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    rows.write(tmp_path / "x.npy", (values[i : i + 2] for i in range(0, 7, 2)), 7)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), values)
    found = rows.Rows(tmp_path / "x.npy")
    assert len(found) == 7
    np.testing.assert_array_equal(found.part(3, 99), values[3:])
    np.testing.assert_array_equal(np.concatenate(list(found)), values)


def test_a_pass_that_breaks_off_leaves_no_file(tmp_path):
    def parts():
        yield np.zeros((2, 3))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rows.write(tmp_path / "x.npy", parts(), 4)
    with pytest.raises(ValueError, match="2 rows in place of 4"):
        rows.write(tmp_path / "x.npy", [np.zeros((2, 3))], 4)
    with pytest.raises(OutputError, match="was not written"):
        rows.write(tmp_path / "gone" / "x.npy", [np.zeros((2, 3))], 2)
    assert list(tmp_path.iterdir()) == []


MEASURE = """
import resource, sys
from pathlib import Path
import numpy as np
from training.evaluation import rows
from training.evaluation.distances import gaussian_of, kid

folder, count, width = Path(sys.argv[1]), int(sys.argv[2]), 64
draw = np.random.default_rng(0)
for name in "ab":
    rows.write(folder / name, (draw.normal(size=(500, width)).astype(np.float32) for _ in range(count // 500)), count)
a, b = (rows.Rows(folder / name) for name in "ab")
gaussian_of(a), kid(a, b)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(not hasattr(resource, "getrusage"), reason="needs getrusage")
def test_ten_times_the_pictures_need_no_more_memory(tmp_path):
    """Ten thousand rows of 64 numbers more would be 2.3 MB a set, and a kernel of all pairs 800 MB."""
    peak = {}
    for count in (1000, 10_000):
        (tmp_path / str(count)).mkdir()
        command = [sys.executable, "-c", MEASURE, str(tmp_path / str(count)), str(count)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        peak[count] = int(done.stdout)
    assert peak[10_000] < peak[1000] + 30_000  # kB: a block of 1,000 × 1,000 pairs is 8 MB, and there are some at once
