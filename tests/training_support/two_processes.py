"""Short distillations on however many processes started this; each writes what it saw to a folder.

accelerate launch --multi_gpu --num_processes 2 two_processes.py FOLDER     # ACCELERATE_USE_CPU=true: on the CPU
"""

import json
import sys
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from accelerate import Accelerator  # noqa: E402

from training.loop import Interrupted, train  # noqa: E402
from training.objective import TrajectoryDistillation  # noqa: E402
from training.stopping import Stop  # noqa: E402
from training_support.tiny import TinyFamily, loop_settings, states_of, tiny_recipe  # noqa: E402

CASES = {
    "lora": {"end_times": {"draw": "exact"}, "training": {"accumulation": 2}},
    "s_plus": {"objective": {"form": "tcf_s_plus", "target": "ema"}},
}
STOPPED = "s_plus"  # the case that is run a second time, asked to stop after three steps by its last process alone


def distil(case: str, folder: Path, accelerator: Accelerator, stop_after: int | None = None) -> tuple[dict, dict]:
    """(what this process saw, for JSON; all that was trained)."""
    recipe = tiny_recipe(**CASES[case])
    task, stop = TrajectoryDistillation(TinyFamily(), recipe), Stop()
    follow_averages = task.after_step

    def after_step():
        follow_averages()
        last = accelerator.process_index == accelerator.num_processes - 1
        stop.requested = last and task.saved.updates == stop_after

    task.after_step = after_step
    seen = {"processes": accelerator.num_processes, "index": accelerator.process_index}
    try:
        seen["losses"] = train(task, loop_settings(recipe), accelerator, folder / case, case, stop).loss
    except Interrupted:
        seen["losses"] = []
    return seen | {"updates": task.saved.updates}, states_of(task)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    accelerator = Accelerator()
    runs = [(case, folder, None) for case in CASES] + [(STOPPED, folder / "stopped", 3)]
    for case, where, stop_after in runs:
        seen, state = distil(case, where, accelerator, stop_after)
        where.mkdir(exist_ok=True)
        name = f"{case}_process_{accelerator.process_index}"
        (where / f"{name}.json").write_text(json.dumps(seen))
        torch.save(state, where / f"{name}.pt")
    accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
