import re
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from training_support.pretrained import (
    RANK,
    SIDE,
    model_words,
    small_recipe,
    write_pictures,
    write_prompts,
    write_small_checkpoint,
)
from training_support.runs import bytes_in
from training_support.tiny import fresh_accelerator

from training import checkpoint, distill, dry_run, families, timed_step
from training.disk import human_size
from training.loop import make_optimizer
from training.objective import TrajectoryDistillation
from training.phases import student_settings
from training.recipe import load_recipe, replaced

UNET = "model.diffusion_model."


@pytest.fixture
def recipe(sd15, cats, tmp_path):
    """Six pictures, two of them repeated twice."""
    return small_recipe(sd15, cats, data={"cache": str(tmp_path / "cache")})


@pytest.fixture(scope="module")
def found(sd15, cats, tmp_path_factory) -> dict[str, str]:
    """What a dry run of 20 steps says."""
    cache = {"cache": str(tmp_path_factory.mktemp("cache"))}
    return said(small_recipe(sd15, cats, data=cache, training={"steps": 20}))


@pytest.fixture
def stepped(recipe):
    """``stepped(**sections)``: a task of the recipe with these changes, and what a step of it took."""

    def make(**sections):
        changed = replaced(recipe, **sections)
        family = families.build(changed)
        family.load()
        family.data = dry_run.RandomData(family, dry_run.Size(SIDE, SIDE))
        task = TrajectoryDistillation(family, changed)
        return task, timed_step.one_step(task, fresh_accelerator())

    return make


def said(recipe) -> dict[str, str]:
    """What a dry run says, by name."""
    lines = dry_run.dry_run(recipe, fresh_accelerator()).splitlines()
    return {line[2:26].strip(): line[26:] for line in lines if line.startswith("  ")}


def layer_shapes(model) -> list[torch.Size]:
    """Shapes of the weights that a LoRA adapts, told by the file alone: SD 1.5 has 278 of them."""
    with safe_open(model, "pt") as file:
        names = [name for name in file.keys() if name.startswith(UNET) and name.endswith(".weight")]
        shapes = {name: torch.Size(file.get_slice(name).get_shape()) for name in names}
    ends = ("input_blocks.0.0.weight", "out.2.weight", "time_embed.0.weight", "time_embed.2.weight")
    return [shape for name, shape in shapes.items() if len(shape) > 1 and not name.endswith(ends)]


def test_parameters_are_those_in_the_file_and_of_two_matrices_a_layer(found, sd15):
    with safe_open(sd15, "pt") as file:
        names = [name for name in file.keys() if name.startswith(UNET)]
        network = sum(torch.Size(file.get_slice(name).get_shape()).numel() for name in names)
    shapes = layer_shapes(sd15)
    lora = sum(RANK * (shape[1:].numel() + shape[0]) for shape in shapes)
    assert len(shapes) == 278
    assert found["network"].startswith(f"{network:,} parameters")
    assert found["trained"] == f"LoRA of rank {RANK} on 278 layers: {lora:,} parameters, fp32"
    for name, n_bytes in (
        ("frozen network", 4 * network),
        ("what is trained", 4 * lora),
        ("gradients", 4 * lora),
        ("averages (EMA)", 4 * lora),
        ("optimiser", 8 * lora + 4 * 2 * 278),  # two moments, and each tensor's count of steps
    ):
        assert found[name] == human_size(n_bytes), name
    assert found["prediction"] == "epsilon" and found["family"].startswith("sd15 (")


def test_data_steps_and_epochs(found):
    assert found["items"] == "6, 8 with repeats, 7 captions; 0 skipped"
    assert found["buckets"].startswith("2 (") and f"{SIDE}×{SIDE}: 4" in found["buckets"]
    assert found["steps"].startswith("20 of 2 samples (1 processes × 1 passes of 2)")
    assert found["epochs"] == "5.0"


def test_nothing_is_written(sd15, cats, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = bytes_in(cats), bytes_in(sd15.parent)
    assert distill.main([*model_words(sd15), "--images", str(cats), "--output", "run", "--dry_run"]) == 0
    assert "one step" in capsys.readouterr().out
    assert not list(tmp_path.iterdir()) and (bytes_in(cats), bytes_in(sd15.parent)) == before


def test_the_cache_still_to_be_encoded_is_as_large_as_it_becomes(recipe):
    family = families.build(recipe)
    plan, folder = dry_run._planned(family)
    wanted = dry_run.estimate(plan, dry_run.bytes_per_caption(family))
    assert not folder.exists() and (wanted.pictures, wanted.captions) == (6, 7)
    family.prepare(fresh_accelerator(), say=lambda line: None)
    became = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert 0.8 * became < wanted.n_bytes < 1.3 * became
    assert "0 pictures and 0 captions" in said(recipe)["cache"]


def test_a_checkpoint_is_as_large_as_said(stepped, tmp_path):
    task, step = stepped()
    optimizer = make_optimizer(list(task.trainable().values()), student_settings(task.recipe))
    for parameter in task.trainable().values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    weights = {name: p.detach() for name, p in task.trainable().items()}
    state = {"weights": weights, "optimizer": optimizer.state_dict(), "extra": task.extra_state()}
    written = checkpoint.save(tmp_path / "checkpoints", 1, state, keep=1).stat().st_size
    tensors = 3 * 278 * 2 + 2 * 278 * 2
    assert 0 < written - dry_run.checkpoint_bytes(task, step) < 1000 * tensors  # torch's own record of each tensor


def test_checkpointed_activations_are_fewer(stepped):
    plain = stepped()[1].memory["activations"]
    assert stepped(memory={"gradient_checkpointing": True})[1].memory["activations"] < plain / 4


def test_offloaded_averages_take_no_device_memory_and_activations_less(stepped):
    plain, memory = stepped()[1].memory, stepped(memory={"offload": True})[1].memory
    assert memory["averages (EMA)"] == 0 < memory["what is trained"]
    assert memory["activations"] < plain["activations"] / 4


def test_the_gradients_of_a_pass_before_stand_beside_a_pass_s_activations(stepped):
    once, accumulated = (stepped(training={"batch": n, "accumulation": n})[1].memory for n in (1, 2))
    more = accumulated["activations"] - once["activations"]
    assert once["gradients"] == accumulated["gradients"] and 0 < more < 1.01 * once["gradients"]


def test_full_fine_tuning_holds_the_teacher_besides(stepped):
    task, step = stepped(student={"kind": "full"})
    network = sum(p.numel() * 4 for p in task.student.network.parameters())
    assert step.memory["frozen network"] == step.memory["what is trained"] == step.memory["gradients"] == network


def test_what_encoding_and_grids_take_is_told(found, recipe, monkeypatch):
    assert re.fullmatch(r"31\.7 MB: weights 21\.0 MB, [\d.]+ MB for 4 of \d+×\d+", found["encoding pictures"])
    assert (
        "for 32 captions" in found["encoding captions"] and "with what the training holds" in found["decoding a grid"]
    )
    monkeypatch.setattr(dry_run, "encoding_needs", lambda *_: 1 / 0)
    told = said(replaced(recipe, training={"batch": 1}))
    assert "can't work it out (ZeroDivisionError" in told["not known"] and "one step" in told


def test_with_kept_pairs_their_memory_and_the_steps_without_the_teacher_are_told(recipe, monkeypatch):
    taken = timed_step.Step(90.0, {"what is trained": 1, "optimiser": 2, "activations": 0}, False, again=60.0)
    monkeypatch.setattr(dry_run, "one_step", lambda *_: taken)
    pairs = {"pairs": 10, "w_min": 1.0, "w_max": 1.0}
    found = said(replaced(recipe, training={"steps": 50}, objective=pairs, validation={"every": 0}))
    assert found["with its pairs kept"] == "60 s, all after the first 10" and found["in all"].startswith("55 min")
    assert found["teacher pairs"] == "20.5 kB in main memory" and "decoding a grid" not in found


def test_time_is_that_of_all_steps(recipe, monkeypatch):
    taken = timed_step.Step(90.0, {"what is trained": 1, "optimiser": 2, "activations": 0}, False)
    monkeypatch.setattr(dry_run, "one_step", lambda *_: taken)
    found = said(replaced(recipe, training={"steps": 50}))
    assert found["one step"].startswith("90 s") and found["in all"].startswith("1 h 15 min for 50 steps")


@pytest.fixture
def prompts(recipe, tmp_path, monkeypatch):
    """``prompts(count)`` is a recipe that has the teacher draw so many; an evaluation takes 2 s, a step 90 s."""
    taken = timed_step.Step(90.0, {"what is trained": 1, "optimiser": 2, "activations": 0}, False)
    monkeypatch.setattr(dry_run, "one_step", lambda *_: taken)
    monkeypatch.setattr(dry_run, "guided_evaluation", lambda family, count: 2.0)
    monkeypatch.setattr(dry_run, "_memory_besides", lambda *_: {})

    def make(count):
        path = str(write_prompts(tmp_path / "prompts.txt", count))
        data = {"images": "", "prompts": path, "teacher_steps": 3, "encode_batch": 3}
        return replaced(recipe, data=data, training={"steps": 50})

    return make


def test_what_the_teacher_draws_of_prompts_is_counted_as_often_as_it_is_then_evaluated(prompts, monkeypatch):
    recipe = prompts(21)  # blocks of 16 and 5, up to 3 at a time: 6 passes and 2
    found = said(recipe)
    assert found["drawing the prompts"] == (
        "1 min, before it: 21 pictures that the cache lacks, 3 at a time in 3 guided evaluations of 2 s, one timed"
    )
    assert found["training"] == "1 h 15 min for 50 steps"
    assert found["in all"] == "1 h 16 min for 50 steps and the drawing; encoding and grids not counted"
    family, rows = families.build(recipe), []
    planned = dry_run._drawing(dry_run._planned(family)[0], family, SimpleNamespace(num_processes=1))
    real = family.output
    monkeypatch.setattr(family, "output", lambda *given: rows.append(len(given[1])) or real(*given))
    family.prepare(fresh_accelerator(), say=lambda line: None)
    assert planned.evaluations == len(rows) == 24 and sum(rows) == 2 * 3 * 21


def test_of_prompts_those_that_the_cache_has_are_drawn_no_more(prompts):
    recipe = prompts(4)
    families.build(recipe).prepare(fresh_accelerator(), say=lambda line: None)
    found, more = told_of_time(recipe), told_of_time(prompts(6))
    assert found["drawing the prompts"] == "none, the cache has them all" and "training" not in found
    assert found["in all"].startswith("1 h 15 min for 50 steps; ")
    assert "1 min, before it: 2 pictures that the cache lacks, 2 at a time" in more["drawing the prompts"]


def told_of_time(recipe) -> dict[str, str]:
    """What a dry run says of time, where a step takes 90 s."""
    family, accelerator = families.build(recipe), fresh_accelerator()
    drawing = dry_run._drawing(dry_run._planned(family)[0], family, accelerator)
    return dry_run._time(dry_run.one_step(), drawing, recipe, accelerator)


def test_processes_share_the_drawing(prompts):
    family = families.build(prompts(40))  # blocks of 16, 16 and 8
    plan, _ = dry_run._planned(family)
    found = [dry_run._drawing(plan, family, SimpleNamespace(num_processes=n)) for n in (1, 2, 4)]
    assert [drawing.evaluations for drawing in found] == [3 * (6 + 6 + 3), 3 * (6 + 3), 3 * 6]


def test_of_pictures_nothing_is_drawn(found):
    assert "drawing the prompts" not in found and "drawing" not in found["in all"]


def test_the_timed_evaluation_is_guided_and_the_second_of_two(recipe, monkeypatch):
    family, rows = families.build(recipe), []
    family.load()
    family.data = dry_run.RandomData(family, dry_run.Size(SIDE, SIDE))
    real, ticks = family.output, iter([0.0, 50.0, 60.0, 63.0])
    monkeypatch.setattr(family, "output", lambda *given: rows.append(len(given[1])) or real(*given))
    monkeypatch.setattr(timed_step, "_now", lambda cuda: next(ticks))
    assert timed_step.guided_evaluation(family, 3) == 3.0 and rows == [6, 6]


def test_hashing_that_takes_long_is_told(recipe, monkeypatch):
    family = families.build(recipe)
    monkeypatch.setattr(dry_run.time, "perf_counter", iter([0.0, 0.5, 0.0, 7.0]).__next__)
    assert dry_run._hashing(family) == {}
    assert dry_run._hashing(family)["weights hashed"].startswith("in 7 s, once for this file (")


def test_accumulated_passes_are_timed_once(stepped, monkeypatch):
    ticks = iter([0.0, 10.0, 11.0])  # a pass of 10 s, the optimiser 1 s
    monkeypatch.setattr(timed_step, "_now", lambda cuda: next(ticks))
    task, step = stepped(training={"batch": 4, "accumulation": 4})
    assert step.seconds == 41.0


def test_sizes_are_told_to_sdxl(tmp_path):
    model, pictures = write_small_checkpoint(tmp_path, "sdxl"), write_pictures(tmp_path / "cats", 1)
    found = said(replaced(small_recipe(model, pictures), family="sdxl", training={"batch": 1}))
    assert " on 788 layers: " in found["trained"]


def test_the_digits_are_answered_in_short():
    answer = dry_run.dry_run(load_recipe("digits"), fresh_accelerator())
    assert "downloads nothing" in answer and len(answer.splitlines()) < 4


def test_what_processes_share_is_said_for_each(sd15, cats, stepped):
    full = {"student": {"kind": "full"}, "memory": {"shard": True}, "model": {"dtype": "fp32"}}
    task, step = stepped(**full)
    lines = dry_run._memory(step, task, SimpleNamespace(num_processes=4, device="cpu"))
    held = sum(n_bytes for name, n_bytes in step.memory.items() if name != "activations")
    assert lines["memory.shard"].startswith(f"{human_size(held / 4)} in each of 4 processes")
