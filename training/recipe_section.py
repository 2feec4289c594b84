"""What every section of a recipe shares."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict

NUM_TRAIN_TIMESTEPS = 1000  # N

Share = Annotated[float, Ge(0), Le(1)]
Count = Annotated[int, Ge(1), Le(NUM_TRAIN_TIMESTEPS)]


class Section(BaseModel):
    """A frozen group of fields that refuses names it does not know, infinities and NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
