"""Trackers: what TensorBoard's files hold, refusals before training, failures that stop no run."""

import logging
import time
from types import SimpleNamespace

import numpy as np
import pytest
from accelerate import tracking
from training_support.runs import files_in
from training_support.tiny import fresh_accelerator

from training import trackers
from training.plot_style import save, styled
from training.trackers import Trackers, check_trackers

pytest.importorskip("tensorboard", reason="needs tensorboard, of the extra train")
PHASE = "tcd_tiny"


def started(folder, names=("tensorboard",), **options) -> Trackers:
    return Trackers(fresh_accelerator(), list(names), folder / "logs", PHASE, **({"batch": 8, "every": 2} | options))


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "logs" / PHASE), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    return found.Reload()


def scalars(folder, tag: str) -> dict[int, float]:
    return {event.step: event.value for event in events(folder).Scalars(tag)}


def feed(log: Trackers, steps) -> None:
    for step in steps:
        log.on_step(step, loss=float(step), lr=step / 1000, norm=10.0 * step)


def make_picture(path):
    from matplotlib.figure import Figure

    with styled():
        figure = Figure(figsize=(0.2, 0.1))
        figure.figimage(np.zeros((20, 40, 3), np.uint8))
        save(figure, path)
    return path


# -- what is logged ------------------------------------------------------------------------------------------------


def test_loss_rate_and_gradient_are_means_over_a_few_steps(tmp_path):
    with started(tmp_path) as log:
        feed(log, range(1, 6))
    assert scalars(tmp_path, "loss") == {2: 1.5, 4: 3.5, 5: 5.0}
    assert scalars(tmp_path, "gradient_norm") == {2: 15.0, 4: 35.0, 5: 50.0}
    assert scalars(tmp_path, "learning_rate") == pytest.approx({2: 0.002, 4: 0.004, 5: 0.005})


def test_speed_is_of_the_steps_alone(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(trackers, "time", clock)
    with started(tmp_path) as log:
        for step in (1, 2, 3, 4):
            clock.now += 0.25 * step
            feed(log, [step])
            if step == 2:
                clock.now += 60.0  # somebody draws pictures
                log.on_checkpoint(2)
    assert scalars(tmp_path, "samples_per_second") == pytest.approx({2: 2 * 8 / 0.75, 4: 2 * 8 / 1.75})


def test_a_gradient_that_is_not_known_is_left_out(tmp_path):
    """fp16's scaler skips steps."""
    with started(tmp_path) as log:
        log.on_step(1, 1.0, 0.1, None)
        log.on_step(2, 1.0, 0.1, 4.0)
        log.on_step(3, 1.0, 0.1, None)
    assert scalars(tmp_path, "gradient_norm") == {2: 4.0} and set(scalars(tmp_path, "loss")) == {2, 3}


def test_checkpoints_log_what_is_there(tmp_path):
    with started(tmp_path, every=100) as log:
        feed(log, (1, 2, 3))
        log.on_checkpoint(3)
        log.on_checkpoint(3)
        assert scalars(tmp_path, "loss") == {3: 2.0}


def test_recipe_and_pictures_are_logged(tmp_path):
    picture = make_picture(tmp_path / "step_00000002.png")
    with started(tmp_path, config={"name": "tiny", "training": {"lr": 0.5, "clips": (1, 2)}}) as log:
        log.picture(2, picture)
        (shown,) = events(tmp_path).Images("validation")
    assert (shown.step, shown.width, shown.height) == (2, 40, 20)
    text = events(tmp_path).Tensors("recipe/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| training.lr | 0.5 |" in text and "| training.clips | (1, 2) |" in text and "| name | tiny |" in text


def test_a_resumed_run_shows_no_step_twice(tmp_path):
    """Killed after step 8 and resumed from the checkpoint of step 4: what came after it is purged."""
    with started(tmp_path) as log:
        feed(log, range(1, 9))
    time.sleep(1.1)  # event files are named, and read, by the second
    with started(tmp_path, first=4) as log:
        log.on_step(5, 50.0, 0.1, None)
        log.on_step(6, 60.0, 0.1, None)
    assert scalars(tmp_path, "loss") == {2: 1.5, 4: 3.5, 6: 55.0}


def test_no_trackers_write_nothing(tmp_path):
    with started(tmp_path, names=()) as log:
        feed(log, range(1, 4))
        log.on_checkpoint(3)
        log.picture(3, tmp_path / "missing.png")
    assert not files_in(tmp_path) and not (tmp_path / "logs").exists()


# -- refused before training ---------------------------------------------------------------------------------------


def test_an_unknown_tracker_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="there is no tracker 'tensorbord': accelerate has .*tensorboard.*wandb"):
        check_trackers(["tensorbord"])


def test_a_tracker_that_is_not_installed_is_refused_with_pips_name(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "get_available_trackers", lambda: [])
    with pytest.raises(
        ValueError, match=r"comet_ml is not installed: `pip install comet-ml`, or leave it out of valid"
    ):
        started(tmp_path, names=["comet_ml"])
    with pytest.raises(ValueError, match=r"tensorboard, wandb is not installed: `pip install tensorboard wandb`"):
        check_trackers(["tensorboard", "wandb"])
    assert not files_in(tmp_path)


def test_a_tracker_that_cannot_start_is_refused_with_its_reason(tmp_path, monkeypatch):
    def no_account(*arguments, **named):
        raise RuntimeError("not logged in")

    monkeypatch.setattr(tracking.TensorBoardTracker, "start", no_account)
    monkeypatch.setattr(tracking.TensorBoardTracker, "__init__", no_account)
    with pytest.raises(ValueError, match=r"could not be started \(not logged in\): set it up, or leave it out"):
        started(tmp_path)


# -- other trackers, and failures ----------------------------------------------------------------------------------


class Recorder(tracking.GeneralTracker):
    """Somebody's own tracker."""

    name, requires_logging_directory = "recorder", False
    made: list = []

    def __init__(self, run_name, **options):
        super().__init__()
        self.said, self.fails = [("run", run_name)], False
        Recorder.made.append(self)

    @property
    def tracker(self):
        return self

    def start(self):
        pass

    def store_init_configuration(self, values):
        self.said.append(("config", values))

    def log(self, values, step=None, **more):
        if self.fails:
            raise ConnectionError("the server is away")
        self.said.append((step, values))

    def log_images(self, values, step=None, **more):
        self.said.append((step, {name: [np.shape(v) for v in images] for name, images in values.items()}))

    def finish(self):
        self.said.append("finish")


@pytest.fixture
def recorder(monkeypatch):
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "recorder", Recorder)
    monkeypatch.setattr(trackers, "get_available_trackers", lambda: [*tracking.get_available_trackers(), "recorder"])
    return Recorder


def test_trackers_go_by_name_through_accelerate(tmp_path, recorder):
    picture = make_picture(tmp_path / "p.png")
    with started(tmp_path, names=["tensorboard", "recorder"], config={"a": {"b": None}}) as log:
        feed(log, (1, 2))
        log.picture(2, picture)
    said = recorder.made[-1].said
    assert said[:2] == [("run", PHASE), ("config", {"a.b": "None"})]
    assert said[2][0] == 2 and said[2][1]["loss"] == 1.5
    assert said[3:] == [(2, {"validation": [(20, 40, 3)]}), "finish"]
    assert scalars(tmp_path, "loss") == {2: 1.5}


def test_a_tracker_that_fails_is_dropped_and_told_once(tmp_path, recorder, caplog):
    with caplog.at_level(logging.WARNING), started(tmp_path, names=["tensorboard", "recorder"]) as log:
        recorder.made[-1].fails = True
        feed(log, range(1, 7))
    (record,) = [r for r in caplog.records if r.name == "training.trackers"]
    assert record.getMessage() == "the tracker recorder stopped, the training goes on: the server is away"
    assert set(scalars(tmp_path, "loss")) == {2, 4, 6}
