"""Full fine-tuning in shards: two and four processes compute what one does, each holding its part."""

import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from training_support import sharded
from training_support.commands import at
from training_support.pretrained import model_words
from training_support.processes import launch
from training_support.runs import files_in, tensors_in
from training_support.sharded import CASES, STEPS, STOP, trained
from training_support.tiny import differing, fresh_accelerator

from training.recipe import RecipeError, build
from training.sharding import check_launch

CLOSE = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What one, two and four processes left behind."""
    folder = tmp_path_factory.mktemp("sharded")
    accelerator = fresh_accelerator()
    one = {case: sharded.distil(case, folder / "alone", accelerator, grids=case == "exact") for case in CASES}
    torch.save(one, folder / "alone" / "process_0.pt")
    sharded.take(folder / "alone", folder / "one")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, sharded.__file__, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def seen(folder, run: str, count: int = 1) -> list[dict]:
    return [torch.load(folder / run / f"process_{i}.pt", weights_only=False) for i in range(count)]


def differ(a, b) -> float:
    """The largest difference of two folders' last checkpoints, which hold the same things."""
    a, b = trained(a), trained(b)
    assert a.keys() == b.keys() and len(a) > 500
    assert all(type(b[name]) is torch.Tensor and a[name].shape == b[name].shape for name in a)
    assert all(a[name].dtype == b[name].dtype for name in a)
    return max((a[name] - b[name]).abs().max().item() for name in a)


RUNS = [("two", 2, case) for case in CASES] + [("four", 4, "exact")]


@pytest.mark.parametrize(("run", "count", "case"), RUNS)
def test_losses_gradients_and_all_that_is_trained_are_one_processs(folder, run, count, case):
    expected = seen(folder, "alone")[0][case]
    for process in seen(folder, run, count):
        assert process[case]["losses"] == pytest.approx(expected["losses"], rel=CLOSE)
        assert process[case]["norms"] == pytest.approx(expected["norms"], rel=CLOSE)
    assert min(expected["norms"]) > sharded.COMMON["training"]["clip"]  # it is the clipped gradient that is followed
    assert differ(folder / "alone" / case, folder / run / case) < CLOSE


@pytest.mark.parametrize(("run", "count", "case"), RUNS)
def test_each_process_holds_its_part_of_weights_teacher_averages_and_moments(folder, run, count, case):
    whole = seen(folder, "alone")[0][case]["held"]
    parts = [process[case]["held"] for process in seen(folder, run, count)]
    for kind, numbers in whole.items():
        assert sum(part[kind] for part in parts) == numbers > 0
        assert max(part[kind] for part in parts) < 1.02 * numbers / count


def test_a_checkpoint_is_written_once_and_has_the_tensors_storages_alone(folder):
    for run in ("two", "four"):
        alone, shared = (folder / of / "exact" / f"step_{STEPS:08d}.pt" for of in ("alone", run))
        assert shared.stat().st_size == pytest.approx(alone.stat().st_size, rel=0.01)
        assert sorted(path.name for path in shared.parent.iterdir()) == [f"step_{i:08d}.pt" for i in (STOP, STEPS)]


# ---- stopped, resumed ----


def test_all_stop_where_one_is_asked_to_and_go_on_to_the_same_bits(folder):
    for whole, stopped, resumed in ((p["exact"], p["stopped"], p["resumed"]) for p in seen(folder, "two", 2)):
        assert len(stopped["norms"]) == STOP and stopped["losses"] == []
        assert resumed["losses"] == whole["losses"] and stopped["norms"] + resumed["norms"] == whole["norms"]
    runs = [trained(folder / run / "exact") for run in ("two", "two/stopped")]
    assert not differing(*runs)


def test_a_run_goes_on_on_another_number_of_processes(folder):
    sharded.take(folder / "four", folder / "after_four")
    last = sharded.distil("exact", folder / "after_four", fresh_accelerator())
    expected = seen(folder, "alone")[0]["exact"]["losses"]
    found = {"one": seen(folder, "two")[0]["after one"], "four/after_two": seen(folder, "four")[0]["after two"]}
    for where, after in {**found, "after_four": last}.items():
        assert len(after["norms"]) == STEPS - STOP and after["losses"] == pytest.approx(expected, rel=CLOSE)
        assert differ(folder / "alone" / "exact", folder / where / "exact") < CLOSE


def test_a_loss_that_is_not_finite_in_one_process_stops_all(folder):
    first, second = (process["diverged"]["diverged"] for process in seen(folder, "two", 2))
    assert first == second and "training stopped at step 2: the loss is nan" in first


def test_fp16s_scaler_passes_over_a_step_for_all(folder):
    first, second = (process["overflow"] for process in seen(folder, "two", 2))
    assert first["moved"] == second["moved"] == [False, True]
    assert first["norms"] == second["norms"] and math.isinf(first["norms"][0]) and math.isfinite(first["norms"][1])


# ---- grids ----


def test_grids_are_sampled_by_all_and_decoded_by_the_main_process(folder):
    alone, (main, other) = seen(folder, "alone")[0]["exact"], [p["exact"] for p in seen(folder, "two", 2)]
    assert alone["asked"] == main["asked"] == other["asked"] == STEPS and not other["decoded"]
    for latents, expected in zip(main["decoded"], alone["decoded"], strict=True):
        torch.testing.assert_close(latents, expected, atol=1e-4, rtol=1e-4)
    assert (folder / "two" / "grids" / f"step_{STEPS:08d}.png").is_file()


def test_after_a_grid_without_memory_no_process_samples_another(folder):
    main, other = (process["after one"] for process in seen(folder, "two", 2))
    assert main["asked"] == other["asked"] == 1 and len(main["losses"]) == STEPS


# ---- whole commands ----

WORDS = "--student.kind full --memory.shard --memory.gradient_checkpointing --training.steps 2 --training.batch 2 "
WORDS += "--objective.skip 250 --objective.form tcf_s_plus --end_times.draw integers --validation.every 2 "
WORDS += "--validation.steps 1 --validation.teacher_steps 1 --validation.w 1 --name whole --output"


def test_a_run_stopped_on_one_process_ends_on_two_with_the_folder_of_one(commands, sd15, cats, tmp_path):
    words = [*model_words(sd15), "--images", cats, *WORDS.split()]
    alone = commands.run(*words, "one", cwd=tmp_path)
    stopped = commands.run(*words, "two", cwd=tmp_path, faults=[at("training.loop._step", 1, "SIGTERM")])
    assert (alone.status, stopped.status) == (0, 130), f"{alone}\n{stopped}"
    both = launch(commands, 2, "--output", "two", "--resume", cwd=tmp_path)
    assert all(process.status == 0 for process in both), "\n\n".join(map(str, both))
    assert files_in(tmp_path / "one") == files_in(tmp_path / "two")
    one, two = (tmp_path / run / "tcd_whole" for run in ("one", "two"))
    assert (one / "config.json").read_bytes() == (two / "config.json").read_bytes()
    weights, shared = tensors_in(one), tensors_in(two)
    assert weights.keys() == shared.keys() and any("target_embedding" in name for name in weights)
    assert all(weights[name].dtype == shared[name].dtype for name in weights)
    assert max((weights[name] - shared[name]).abs().max().item() for name in weights) < 1e-4
    first, second = (json.loads((tmp_path / run / "report.json").read_text())["loss"] for run in ("one", "two"))
    assert second["tcd"]["loss"] == pytest.approx(first["tcd"]["loss"], rel=CLOSE)


# ---- refused ----


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({}, "memory.shard needs student.kind full, got lora: of a LoRA there is little to share out"),
        (
            {"student": {"kind": "full"}, "memory": {"optimizer": "adamw8bit"}},
            "memory.shard needs memory.optimizer adamw",
        ),
    ],
)
def test_what_is_not_shared_out_is_refused(sections, said):
    with pytest.raises(RecipeError, match=said):
        build(sections | {"memory": {"shard": True} | sections.get("memory", {})})


def test_accelerates_own_sharding_is_refused():
    with pytest.raises(ValueError, match="accelerate was started with FSDP: start it without .* --memory.shard"):
        check_launch(SimpleNamespace(distributed_type=DistributedType.FSDP))
    check_launch(fresh_accelerator())
