"""A toy task for the training loop, whose every step has a closed form."""

import torch

from tcd_core import Level
from training.draws import WHOLE, generator_for, rows_of
from training.loop import LoopSettings, train
from training.student import Ema
from training_support.tiny import fresh_accelerator


class Line(torch.nn.Module):
    """A toy task: one weight w with loss ``slope · w``, so that AdamW moves it by the learning rate at each step."""

    def __init__(self, slope=1.0, p_dropout=0.0):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(1))
        self.slope, self.dropout = slope, torch.nn.Dropout(p_dropout)
        self.saved, self.seen = Ema(self.trainable(), 0.0), []

    def trainable(self):
        return {"w": self.w}

    def draw(self, step, part=WHOLE):
        noise = torch.randn(8, generator=generator_for(0, "line", step))
        return rows_of({"x": noise, "t": Level(noise, noise, noise), "rows": torch.arange(8) + 8 * step}, part)

    def forward(self, batch):
        return self.slope * self.w * self.dropout(torch.ones_like(batch["x"]))

    def after_step(self):
        self.seen.append(self.w.item())

    def extra_state(self):
        return {"seen": list(self.seen)}

    def load_extra_state(self, state):
        self.seen = list(state["seen"])


def train_line(folder, task, accelerator=None, **settings):
    values = {"steps": 10, "batch": 8, "lr": 0.1, "clip": 0.0} | settings
    return train(task, LoopSettings(**values), accelerator or fresh_accelerator(), folder, "line")
