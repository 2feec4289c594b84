"""Data: pictures with captions, or prompts alone, encoded once into a cache on the disk, and batches from it.

Where the data come from; a source can be gone through again and again, and gives the same in the same order:

- `items`: one picture and its caption, one thing that was skipped
- `folder`: a folder of pictures and caption files; `shards`: webdataset's; `prompts`: no pictures, the teacher's own
- `sources`: the one of them that a recipe names, `open_source`
- `pictures`: files of any origin, read safely; `buckets`: the sizes they are cropped to

The cache:

- `cache`: the pass that fills it, `encode`, over one process or several; `work`: one process's share
- `settings`: what a cache was made with; `blocks`: its files; `plan`: what is missing in it
- `reading`: a finished `Cache`; `order`: which items a step's batch holds
"""

from .items import DataError
from .settings import Settings
from .sources import open_source

__all__ = ["DataError", "Settings", "open_source"]
