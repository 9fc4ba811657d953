"""Where a report comes from: command, seeds, package versions, commit, device and the host facts that matter.

Nothing here is secret: the command is kept without the values of options that look like keys, the environment is
not kept at all.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from tsguard.report import Provenance

PACKAGES = ("tsguard", "keras", "torch", "numpy", "pandas", "pyarrow", "great-expectations", "hypothesis")
_SECRET = re.compile(r"(?i)((?:^|[-_.])(?:key|token|secret|password|passwd|credential)s?[\w.-]*=)(.*)")


def gather(*, config: Mapping[str, Any] | None = None, seeds: Mapping[str, int] | None = None) -> Provenance:
    """The facts as they are now; `finished` adds the end."""
    return Provenance(
        command=command_line(sys.argv),
        config=without_secrets(config or {}),
        seeds=dict(seeds or {}),
        versions=versions(),
        commit=_git("rev-parse", "HEAD"),
        dirty=_dirty(),
        device=_device(),
        host={
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
        },
        started=now(),
    )


def now() -> str:
    """This moment, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def today() -> date:
    """The day, for waivers that end."""
    return datetime.now(UTC).date()


def command_line(argv: list[str]) -> str:
    """The command without the folder of the program and without values that look like secrets."""
    if not argv:
        return ""
    program = Path(argv[0])
    # `python -m pytest` is known by its package, not by the file that Python runs.
    words, hide = [program.parent.name if program.name == "__main__.py" else program.name], False
    for word in argv[1:]:
        words.append("***" if hide else _SECRET.sub(r"\1***", word))
        hide = bool(re.fullmatch(r"(?i)--?[\w-]*(key|token|secret|password|credential)s?", word))
    return " ".join(words)


_KEY = re.compile(r"(?i)(?:^|[-_.])(?:api_?key|access_?key|private_?key|token|secret|password|passwd|credential)s?$")
_LOGIN = re.compile(r"(\w+://[^/\s:@]+:)[^/\s@]+@")
"""The password of an address such as https://user:password@host."""


def without_secrets(tree: Any) -> Any:
    """The same settings with values under names that look like secrets replaced, and passwords in addresses too.

    What was taken from the environment (`${NAME}`) is a reference already and stays one. Numbers stay: how many tokens
    a model reads is no secret.
    """
    if isinstance(tree, Mapping):
        return {
            key: "***" if isinstance(value, str) and _KEY.search(str(key)) and "${" not in value
            else without_secrets(value)
            for key, value in tree.items()
        }  # fmt: skip
    if isinstance(tree, list | tuple):
        return [without_secrets(item) for item in tree]
    return _LOGIN.sub(r"\1***@", tree) if isinstance(tree, str) else tree


def versions() -> dict[str, str]:
    """Versions of what matters and is installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _device() -> str:
    if "torch" not in sys.modules:
        return ""
    from tsguard.backend import device_name

    return device_name()


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _dirty() -> bool | None:
    state = _git("status", "--porcelain", "--untracked-files=no")
    return None if state is None else bool(state)
