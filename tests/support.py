"""Loads the pack the way a host does: by path, under a name of its own, with relative imports inside."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).resolve().parent.parent
PACK = "tcd_toolkit_under_test"


def load_pack_module(name: str) -> ModuleType:
    """Import ``name`` (such as ``"nodes.lora_format"``) from inside the pack.

    The repository's ``nodes`` is never imported by its bare name: that name is the host's.
    """
    if PACK not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            PACK, REPOSITORY / "__init__.py", submodule_search_locations=[str(REPOSITORY)]
        )
        pack = importlib.util.module_from_spec(spec)
        sys.modules[PACK] = pack
        spec.loader.exec_module(pack)
    return importlib.import_module(f"{PACK}.{name}")
