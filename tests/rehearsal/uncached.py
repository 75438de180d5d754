"""No compiled module is written beside the deployed code.

`sam deploy` ships functions/ as it is (`SkipBuild`), SAM has no way to leave files out of it, and a
`__pycache__` would be deployed as well. Everything else is cached as ever: boto3 and moto take
seconds to compile.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any


class UncachedLoader(SourceFileLoader):
    """Reads source files, and writes nothing."""

    def set_data(self, *_: Any, **__: Any) -> None:
        """Python keeps compiled modules with this method (`importlib`, SourceLoader)."""


class UncachedFinder:
    """Finds the packages of one folder before anything else does."""

    def __init__(self, folder: Path) -> None:
        self.packages = {path.name for path in folder.iterdir() if path.is_dir()}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] not in self.packages:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = UncachedLoader(name, spec.loader.path)
        return spec


def keep_clean(folder: Path) -> None:
    """From now on, no import in this process writes into the folder."""
    sys.meta_path.insert(0, UncachedFinder(folder))
