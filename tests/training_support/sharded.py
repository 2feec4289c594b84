"""Short full fine-tunings in shards, by processes forked from this script; each writes what it saw to a folder.

python sharded.py FOLDER     # FOLDER/one holds the checkpoint of a single process that was stopped
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from accelerate import Accelerator  # noqa: E402

from training import checkpoint, loop  # noqa: E402
from training.loop import Interrupted, any_process, train  # noqa: E402
from training.objective import TrajectoryDistillation  # noqa: E402
from training.sharding import mesh_of  # noqa: E402
from training.stopping import Stop, TrainingDiverged  # noqa: E402
from training.validation import Validation, ValidationSettings  # noqa: E402
from training_support.processes import variables  # noqa: E402
from training_support.tiny import CLASSES, TinyFamily, loop_settings, tiny_recipe  # noqa: E402

STEPS, STOP = 4, 2
COMMON = {
    "student": {"kind": "full"},
    "training": {"steps": STEPS, "lr": 1e-4, "warmup": 0, "clip": 0.01},
    "objective": {"skip": 250},  # with small jumps the loss is made of differences that rounding shows in
    "memory": {"shard": True},
}
CASES = {
    "exact": {"end_times": {"draw": "exact"}, "training": {"accumulation": 4}},
    "s_plus": {"objective": {"form": "tcf_s_plus", "target": "ema"}, "memory": {"gradient_checkpointing": True}},
    "tcf2": {"objective": {"form": "tcf2"}, "memory": {"offload": True}},
}
GRIDS = ValidationSettings(("one", "two"), every=1, steps=(1,), gamma=0.3, w=1.5, teacher_steps=1, seed=7)


class Family(TinyFamily):
    """The tiny family, asked for pictures of classes; what it is given to decode is kept, and `fail` raised there."""

    latent_shape = (1, 4, 4)

    def __init__(self, fail: Exception | None = None) -> None:
        super().__init__()
        self.fail, self.decoded, self.asked = fail, [], 0

    def sample_condition(self, prompts):
        self.asked += 1
        labels = torch.arange(len(prompts))
        return self.condition(labels), self.condition(torch.full_like(labels, CLASSES))

    def decode(self, latents):
        self.decoded.append(latents)
        if self.fail:
            raise self.fail
        return latents.tanh()


class Norms:
    """A hook that notes the gradient's norm."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_step(self, step, loss, lr, norm) -> None:
        self.seen.append(norm)

    def on_checkpoint(self, step) -> None:
        pass


def case_of(name: str):
    """A case's recipe."""
    case = CASES[name]
    return tiny_recipe(**{section: COMMON.get(section, {}) | case.get(section, {}) for section in {**COMMON, **case}})


def distil(
    case: str,
    folder: Path,
    accelerator: Accelerator,
    stop_after: int | None = None,
    grids: bool = False,
    family: TinyFamily | None = None,
    change: Callable[[TrajectoryDistillation], None] = lambda task: None,
) -> dict:
    """What this process saw and held; what was trained is in the last checkpoint."""
    recipe, family, stop, norms = case_of(case), family or Family(), Stop(), Norms()
    if recipe.memory.gradient_checkpointing:
        family.network.enable_gradient_checkpointing()
    task = TrajectoryDistillation(family, recipe, mesh=mesh_of(recipe, accelerator))
    change(task)
    follow, last = task.after_step, accelerator.process_index == accelerator.num_processes - 1

    def after_step():
        follow()
        stop.requested = last and task.saved.updates == stop_after  # the last process alone is asked to

    task.after_step = after_step
    hooks, optimizers = [norms], []
    if grids:
        sharing = {"agree": lambda flag: any_process(accelerator, flag), "draws": accelerator.is_main_process}
        hooks.append(Validation(task, GRIDS, folder / "grids", last=STEPS, **sharing))
    make = loop.make_optimizer
    loop.make_optimizer = lambda *given: optimizers.append(make(*given)) or optimizers[-1]
    seen = {"losses": [], "diverged": ""}
    try:
        settings = loop_settings(recipe, every=STOP)
        seen["losses"] = train(task, settings, accelerator, folder / case, case, stop, hooks).loss
    except Interrupted:
        pass
    except TrainingDiverged as error:
        seen["diverged"] = str(error)
    finally:
        loop.make_optimizer = make
    seen |= {"norms": norms.seen, "asked": family.asked, "decoded": family.decoded}
    return seen | {"held": held(task, optimizers[-1])}


def trained(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder's last checkpoint, by where they stand in it."""
    found: dict[str, torch.Tensor] = {}

    def note(value, where: str) -> None:
        if isinstance(value, dict):
            for name, part in value.items():
                note(part, f"{where} {name}")
        elif isinstance(value, torch.Tensor):
            found[where] = value

    note(checkpoint.newest(folder)[1], "")
    return found


def held(task: TrajectoryDistillation, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """How many numbers this process holds, by what they are."""
    averages = [average.weights.values() for average in (task.saved, task.target_ema) if average]
    moments = [of for state in optimizer.state.values() for of in state.values() if of.ndim]
    parts = {"weights": task.trainable().values(), "teacher": task.student._teacher.values()}
    parts |= {"averages": [weight for of in averages for weight in of], "moments": moments}
    return {name: sum(t.numel() for t in of) for name, of in parts.items()}


def nothing_to_learn_from(task: TrajectoryDistillation) -> None:
    """A change: data that are not finite, at the second step, in the last process's part alone."""
    draw = task.draw

    def drawn(step, part=loop.WHOLE):
        batch = draw(step, part)
        return batch._replace(x0=batch.x0 * float("nan")) if step == 1 and part.stop == 8 else batch

    task.draw = drawn


def overflow(accelerator: Accelerator) -> dict:
    """Whether fp16's scaler passes over a step for all, where one process's part of one gradient is not finite."""
    recipe = case_of("exact")
    task = TrajectoryDistillation(Family(), recipe, mesh=mesh_of(recipe, accelerator))
    optimizer = loop.make_optimizer(list(task.trainable().values()), loop_settings(recipe))
    scaler, moved, norms = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=10), [], []
    scaling = SimpleNamespace(
        scaler=scaler, reduce=accelerator.reduce, unscale_gradients=lambda: scaler.unscale_(optimizer)
    )
    for infinite in (True, False):
        scaler.scale(task(task.draw(0)).mean()).backward()
        if infinite and accelerator.is_main_process:
            task.student.network.conv_in.weight.grad.to_local().fill_(float("inf"))
        before = {name: weight.detach().clone() for name, weight in task.trainable().items()}
        norms.append(task.shards.clip(1.0, scaling))
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        moved.append([not torch.equal(before[name], weight) for name, weight in task.trainable().items()])
    return {"moved": [any(of) for of in moved], "norms": norms}


# ---- processes ----


def two(folder: Path, accelerator: Accelerator) -> dict:
    """All cases, one with grids; stopped and on from there, on from one process's checkpoint; not finite."""
    seen = {case: distil(case, folder, accelerator, grids=case == "exact") for case in CASES}
    seen["stopped"] = distil("exact", folder / "stopped", accelerator, stop_after=STOP)
    accelerator.wait_for_everyone()
    seen["resumed"] = distil("exact", folder / "stopped", accelerator)
    fails = Family(fail=MemoryError("no room for the decoder"))
    seen["after one"] = distil("exact", folder.parent / "one", accelerator, grids=True, family=fails)
    seen["diverged"] = distil("exact", folder / "diverged", accelerator, change=nothing_to_learn_from)
    return seen | {"overflow": overflow(accelerator)}


def four(folder: Path, accelerator: Accelerator) -> dict:
    """A case, from its beginning and on from two processes' checkpoint."""
    seen = {"exact": distil("exact", folder, accelerator)}
    if accelerator.is_main_process:
        take(folder.parent / "two", folder / "after_two")
    accelerator.wait_for_everyone()
    return seen | {"after two": distil("exact", folder / "after_two", accelerator)}


def take(run: Path, to: Path) -> None:
    """The checkpoint of a run's middle, for another to go on from."""
    (to / "exact").mkdir(parents=True)
    shutil.copy(run / "exact" / f"step_{STOP:08d}.pt", to / "exact")


def forked(count: int, work: Callable[[Path, Accelerator], dict], folder: Path) -> None:
    """Run a function by as many processes; RuntimeError if one fails, after the others have been ended."""
    folder.mkdir()
    running = set()
    for rank, of_rank in enumerate(variables(count)):
        pid = os.fork()
        if not pid:
            status = 1
            try:
                os.environ.update(of_rank)
                accelerator = Accelerator()
                torch.save(work(folder, accelerator), folder / f"process_{rank}.pt")
                accelerator.end_training()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        running.add(pid)
    while running:
        pid, status = os.wait()
        running.discard(pid)
        if status:
            for other in running:
                os.kill(other, signal.SIGKILL)
            raise RuntimeError(f"a process of {count} ended with status {status}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    forked(2, two, Path(sys.argv[1]) / "two")
    forked(4, four, Path(sys.argv[1]) / "four")
