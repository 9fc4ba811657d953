"""What `tsguard init` writes: a run.yaml to edit, a model to replace, and suites that run at once."""

from __future__ import annotations

from pathlib import Path

from tsguard.store import writable_folder, write_whole

PROJECT = Path(__file__).parent / "project"


def write_starter(folder: Path) -> dict[str, bool]:
    """Copy the starting files; True for those written, False for those that were there and are kept."""
    target = writable_folder(folder)
    files = {}
    for source in sorted(PROJECT.rglob("*")):
        if not source.is_file() or "__pycache__" in source.parts:
            continue
        # Templates end in .txt so that no tool takes them for part of this package.
        name = str(source.relative_to(PROJECT)).removesuffix(".txt")
        place = target / name
        files[name] = not place.exists()
        if files[name]:
            write_whole(place, source.read_bytes())
    return files
