"""Which files of the user's own callbacks may hold weights that are not finite.

Where finiteness is read late (on a GPU, or where only an update broke the weights), a callback may save between the
bad step and the moment it is noticed. tsguard rewinds no callbacks; it says which files those are.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SUFFIXES = (".keras", ".h5", ".weights", ".npz", ".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".index")
"""What weights are saved as."""

SLACK_SECONDS = 0.05
"""File times may lag behind the clock by a tick of the kernel."""

FILES_MAX = 10_000
"""Files looked at in one folder: a folder of data is not a folder of checkpoints."""


def files_since(callbacks: Iterable[Any], moment: float) -> list[str]:
    """Weight files beside the paths that callbacks hold, written after `moment` (time of day)."""
    found: dict[str, float] = {}
    for folder in dict.fromkeys(place for callback in callbacks for place in _folders(callback)):
        for number, path in enumerate(sorted(folder.rglob("*") if folder.is_dir() else ())):
            if number >= FILES_MAX:
                break
            try:
                written = path.stat().st_mtime
                if path.name.endswith(SUFFIXES) and path.is_file() and written >= moment - SLACK_SECONDS:
                    found[str(path)] = written
            except OSError:  # gone in the meantime
                continue
    return sorted(found, key=lambda path: found[path])


def _folders(callback: Any) -> list[Path]:
    """Where a callback saves: the folders of the paths among its attributes (`filepath`, `backup_dir` …)."""
    places = []
    for name, value in getattr(callback, "__dict__", {}).items():
        told = any(word in name.lower() for word in ("path", "file", "dir", "folder"))
        if not told or not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
            continue
        path = Path(str(os.fspath(value)).split("{")[0])  # a template names its folder before the first field
        place = path if path.is_dir() else path.parent
        if place.is_dir() and place.resolve() not in (Path.home().resolve(), Path("/")):
            places.append(place.resolve())
    return places
