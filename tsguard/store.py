"""The store: the only writer. A run is a folder, and every file in it appears whole or not at all.

Files are written beside their place and moved into it; events are appended and flushed line by line, so that a killed
run can still say what was known. No name given by a user or found in data leaves the run's folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from tsguard.errors import StoreError, explain
from tsguard.report import Report, Run, dumps, loads

EVENTS = "events.jsonl"
LEAST_FREE_MB = 64.0
"""Below this much free disk a run is refused: its events, report and pages need about ten."""


def tidy_name(name: str) -> str:
    """A name as a folder can bear it: letters, digits, dot, dash, underscore; never empty, hidden or a path."""
    return re.sub(r"[^\w.\-]+", "-", name, flags=re.ASCII).strip("-.")[:60] or "run"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run, and everything that may be done to it."""

    run: Run

    @property
    def path(self) -> Path:
        """The folder itself."""
        return self.run.path

    @classmethod
    def create(
        cls, out: str | Path, name: str, *, now: datetime | None = None, needs_mb: float = LEAST_FREE_MB
    ) -> RunFolder:
        """A new folder `<name>-<time>-<id>` under `out`; a clear error where it could not hold a run."""
        root = writable_folder(out, needs_mb=needs_mb)
        moment = (now or datetime.now(UTC)).strftime("%Y%m%d-%H%M%S")
        while True:
            identity = secrets.token_hex(3)
            folder = root / f"{tidy_name(name)}-{moment}-{identity}"
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                break
        run = Run(id=identity, name=name, folder=str(folder))
        made = cls(run)
        made.write_text("run.json", dumps({"id": run.id, "name": run.name, "time": moment, "pid": os.getpid()}))
        return made

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """The folder of an earlier run, by its path or by the path of a file in it."""
        folder = Path(path)
        folder = folder.parent if folder.is_file() else folder
        manifest = folder / "run.json"
        if not manifest.is_file():
            raise StoreError(
                explain(
                    str(path),
                    received="a folder without run.json" if folder.is_dir() else "a path that does not exist",
                    expected="the folder of a run, such as reports/<name>-<time>-<id>",
                    todo="`index.html` in the folder of reports lists the runs that there are.",
                )
            )
        fields = loads(manifest.read_text(encoding="utf-8"))
        if not isinstance(fields, dict) or not {"id", "name"} <= set(fields):
            raise StoreError(
                explain(
                    str(manifest),
                    received="a file without the fields 'id' and 'name'",
                    expected="the run.json that tsguard wrote when the run began",
                    todo="Take it from a copy of the run; the other files of the folder are as they were.",
                )
            )
        return cls(Run(id=str(fields["id"]), name=str(fields["name"]), folder=str(folder)))

    def file(self, name: str) -> Path:
        """A place inside the folder. A name that would leave it is refused."""
        target = (self.path / name).resolve()
        if not target.is_relative_to(self.path.resolve()):
            raise StoreError(
                explain(
                    "store",
                    received=f"the file name {name!r}",
                    expected="a name inside the run's folder",
                    todo="Remove '..' and leading slashes.",
                )
            )
        return target

    def write_text(self, name: str, text: str) -> Path:
        """Write a whole file, or leave the old one."""
        return self.write_bytes(name, text.encode("utf-8"))

    def write_bytes(self, name: str, content: bytes, *, private: bool = False) -> Path:
        """Write a whole file, or leave the old one. `private`: for its owner alone."""
        return write_whole(self.file(name), content, private=private)

    def remove(self, name: str) -> None:
        """Take away one file of this run, if it is there."""
        self.file(name).unlink(missing_ok=True)

    def delete(self) -> None:
        """Remove the whole run. Only what has a run.json of its own is a run."""
        if (self.path / "run.json").is_file():
            shutil.rmtree(self.path)

    def append(self, event: Mapping[str, Any]) -> None:
        """Add one line to the events; it is on its way to the disk when this returns."""
        with self.file(EVENTS).open("a", encoding="utf-8") as stream:
            stream.write(dumps(dict(event), indent=None) + "\n")

    def journal(self) -> Journal:
        """An open events file, for those who append often."""
        return Journal(self.file(EVENTS).open("a", encoding="utf-8"))

    def counter(self, name: str) -> Counter:
        """A number of this run that outlives a kill."""
        return Counter(self.file(name))

    def events(self) -> list[dict[str, Any]]:
        """Every event that was written whole; the torn last line of a killed run is left out."""
        try:
            lines = self.file(EVENTS).read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            with contextlib.suppress(StoreError):
                found.append(loads(line))
        return found

    def save_report(self, report: Report) -> Path:
        """report.json, from which every page is drawn."""
        return self.write_text("report.json", report.to_json())


class Counter:
    """A number in a file that is mapped into memory: it costs a microsecond to set, and outlives a killed process."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(8))
        with path.open("r+b") as stream:
            self._map = mmap.mmap(stream.fileno(), 8)

    @property
    def value(self) -> int:
        """What was set last, by whichever process."""
        return int.from_bytes(self._map[:8], "little")

    @value.setter
    def value(self, number: int) -> None:
        self._map[:8] = number.to_bytes(8, "little")


class Journal:
    """The events file held open: one write and one flush a line, so that a kill loses at most the last one."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def append(self, event: Mapping[str, Any]) -> None:
        """Add one line."""
        self._stream.write(dumps(dict(event), indent=None) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_whole(target: Path, content: bytes, *, private: bool = False) -> Path:
    """Write beside the target, then move into place: a reader sees the old file or the new one, never a part."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            # mkstemp makes files private; what a run leaves is meant to be read like any other file.
            if not private:
                os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as refused:
        raise StoreError(
            explain(
                str(target),
                received=f"{refused.strerror or refused} while writing {len(content)} bytes",
                expected="a folder that can be written, with room for it",
                todo="Free some space or choose another folder with --out.",
            )
        ) from refused
    return target


def append_text(target: str | Path, text: str) -> None:
    """Add to a file that others write to as well, such as a CI service's step summary."""
    with Path(target).open("a", encoding="utf-8") as stream:
        stream.write(text)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def writable_folder(path: str | Path, *, needs_mb: float = LEAST_FREE_MB) -> Path:
    """Make sure, before anything costs money, that a folder exists, can be written and has room."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, probe = tempfile.mkstemp(dir=folder, prefix=".probe-")
        os.close(handle)
        os.unlink(probe)
        free = shutil.disk_usage(folder).free / 1e6
    except OSError as refused:
        raise StoreError(
            explain(
                str(folder),
                received=refused.strerror or str(refused),
                expected="a folder that can be written",
                todo="Change its permissions, or choose another folder with --out.",
            )
        ) from refused
    if free < needs_mb:
        raise StoreError(
            explain(
                str(folder),
                received=f"{free:.0f} MB free",
                expected=f"at least {needs_mb:.0f} MB for events, checkpoints and pages",
                todo="Free some space, or choose another folder with --out.",
            )
        )
    return folder


def load_report(path: str | Path) -> Report:
    """A saved report, by its file, its run's folder, or the page beside it."""
    place = Path(path)
    file = place / "report.json" if place.is_dir() else place
    if file.suffix == ".html":
        file = file.with_name("report.json")
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as refused:
        raise StoreError(
            explain(
                str(path),
                received=refused.strerror or str(refused),
                expected="a report.json or the folder of a run",
                todo="`tsguard report RUN` writes it from the events of a run that died.",
            )
        ) from None
    return Report.from_json(text, path=file)


def runs(out: str | Path) -> Iterator[RunFolder]:
    """Every run under a folder, oldest first."""
    for manifest in sorted(Path(out).glob("*/run.json"), key=lambda file: file.stat().st_mtime):
        with contextlib.suppress(StoreError, KeyError):
            yield RunFolder.open(manifest.parent)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time; where the platform has no file locks, none."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / ".lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(stream, fcntl.LOCK_UN)


def digest(content: bytes) -> str:
    """SHA-256, as evidence quotes it."""
    return hashlib.sha256(content).hexdigest()
