"""`tcd_core` stands alone, torch and NumPy apart; and its loop never asks the device for a number."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from exact_models import latents
from run_strategies import FLOW, TIMES, VE, VP
from torch.utils._python_dispatch import TorchDispatchMode

import tcd_core
from tcd_core import KeyedNoise, plan, sample

FOLDER = Path(tcd_core.__file__).parent
ALLOWED = {"torch", "numpy", *sys.stdlib_module_names}

IMPORT_ALONE = """
import importlib, pkgutil, sys
import numpy, torch
allowed = {"tcd_core", "torch", "numpy", *sys.stdlib_module_names}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ImportError("tcd_core must not import " + name)

sys.meta_path.insert(0, Refuse())
before = {name.partition(".")[0] for name in sys.modules}
import tcd_core
for module in pkgutil.iter_modules(tcd_core.__path__):
    importlib.import_module("tcd_core." + module.name)
extra = {name.partition(".")[0] for name in sys.modules} - before - allowed
assert not extra, extra
assert all(hasattr(tcd_core, name) for name in tcd_core.__all__)
"""


def test_importing_every_module_needs_torch_and_numpy_alone():
    subprocess.run([sys.executable, "-c", IMPORT_ALONE], cwd=FOLDER.parent, check=True)


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.name)
def test_source_names_no_other_package(file):
    """Imports inside functions too, which importing does not run."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        assert {name.partition(".")[0] for name in names} <= ALLOWED, f"{file.name}:{node.lineno}"


# -- the loop ------------------------------------------------------------------------------------------------------

WAITING = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "unique2", "masked_select", "allclose", "item"}


class NoWaiting(TorchDispatchMode):
    """Fails on what a GPU's host waits for: reading a value, a shape that depends on values, a copy."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.seen.add(name)
        copies = name == "_to_copy" and (kwargs or {}).get("device") is not None
        if name in WAITING or copies:
            raise AssertionError(f"the loop calls {func}, which makes the device wait")
        return func(*args, **(kwargs or {}))


def prepared(schedule, times, order, dtype, device="cpu"):
    """Steps, latents and noise drawn beforehand, and a model that makes no such call itself."""
    steps = plan(schedule, [schedule.level(t) for t in times], 0.3, order)
    x = latents(2, 4, 5, 5, dtype=dtype).to(device)
    draws = {step.n: KeyedNoise(x, 0)(step.n) for step in steps}
    return lambda x, t, s: x * 0.5, x, steps, draws.__getitem__


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("order", ["1", "2", "2M"])
@pytest.mark.parametrize(("schedule", "times"), [(VP, TIMES), (VE, TIMES), (FLOW, (1.0, 0.7, 0.4))])
def test_the_loop_never_makes_the_device_wait(schedule, times, order, dtype):
    run = prepared(schedule, times, order, dtype)
    with NoWaiting() as mode:
        sample(*run, callback=lambda i, step, x, x0: None)
    assert "add_" in mode.seen  # it was watched


@pytest.mark.parametrize("order", ["1", "2", "2M"])
def test_the_loop_runs_on_tensors_without_values(order):
    """On the meta device anything that reads a value raises."""
    model, x, steps, noise = prepared(VP, TIMES, order, torch.float32, device="meta")
    assert sample(model, x, steps, noise).shape == x.shape


def test_the_watch_notices_a_call_that_waits():
    for wait in (lambda x: x.max().item(), lambda x: bool(x.sum() > 0), lambda x: x.to("meta"), torch.nonzero):
        with pytest.raises(AssertionError, match="makes the device wait"), NoWaiting():
            wait(latents(3))


def test_coefficients_are_python_numbers():
    """A tensor or NumPy scalar among them could put float64 on a device that has none, or make it wait."""
    for schedule, times in ((VP, TIMES), (VE, TIMES), (FLOW, (1.0, 0.7, 0.4))):
        for order in ("1", "2", "2M"):
            for step in plan(schedule, [schedule.level(t) for t in times], 0.3, order):
                numbers = [step.gamma, step.weight, step.k_x, step.k_0, step.a, step.b, *step.t, *step.s, *step.n]
                assert {type(number) for number in [*numbers, *(step.u or ())]} == {float}


def test_the_loop_makes_no_float64_of_float32_latents():
    dtypes = set()

    class Dtypes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            found = func(*args, **(kwargs or {}))
            if isinstance(found, torch.Tensor):
                dtypes.add(found.dtype)
            return found

    for order in ("1", "2", "2M"):
        run = prepared(VP, TIMES, order, torch.float32)
        with Dtypes():
            sample(*run)
    assert dtypes == {torch.float32}
