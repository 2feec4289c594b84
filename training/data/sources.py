"""The source of data that a recipe names."""

from __future__ import annotations

from ..recipe_model_fields import Data
from .folder import PictureFolder
from .items import DataError
from .prompts import Prompts
from .shards import Shards


def open_source(data: Data) -> PictureFolder | Shards | Prompts:
    """The pictures, shards or prompts of the recipe's section ``data``.

    Raises:
        DataError: none of them is named, or what is named is not there.
    """
    if data.images:
        return PictureFolder(data.images)
    if data.shards:
        return Shards(data.shards)
    if data.prompts:
        return Prompts(data.prompts, data.prompt_seeds)
    raise DataError(
        "no data: name data.images (a folder of pictures with captions), data.shards (webdataset) or data.prompts (a "
        "text file: the teacher makes the pictures)"
    )
