"""run.yaml → Config: read once, checked whole, every mistake told at once with file, line and the nearest known key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from tsguard import catalogue
from tsguard.errors import ConfigError
from tsguard.findings import Finding
from tsguard.settings import RunSettings, TrainSettings
from tsguard.yamlfile import Document, has_reference, looked_up, parse_yaml, read_yaml, write_yaml


@dataclass(frozen=True)
class Config:
    """The settings of one run. `source` is what was written, `${…}` references kept: that alone is saved or shown."""

    settings: RunSettings
    source: Mapping[str, Any]
    place: str

    def text(self) -> str:
        """The resolved configuration as YAML: defaults filled in, references instead of what they stand for."""
        return write_yaml(self.resolved())

    def resolved(self) -> dict[str, Any]:
        """Every setting with its value; where a reference was written, the reference."""
        full = self.settings.model_dump(mode="json")
        return dict(_overlaid(full, self.source))

    def unused(self) -> tuple[Finding, ...]:
        """A finding for every setting that was given and that nothing has read so far."""
        return tuple(
            catalogue.finding(
                "config-unused-key",
                f"{key}: given in {self.place}, and nothing read it. It has no effect on this run.",
                where={"config_key": key, "file": self.place},
                check="unused settings",
            )
            for key in self.settings.unread()
        )


def _overlaid(full: Mapping[str, Any], source: Any) -> Iterator[tuple[str, Any]]:
    """Put back what was written wherever it holds a reference."""
    for key, value in full.items():
        written = source.get(key) if isinstance(source, Mapping) else None
        if isinstance(value, Mapping):
            yield key, dict(_overlaid(value, written))
        else:
            yield key, _safe(value, written)


def _safe(value: Any, written: Any) -> Any:
    return written if has_reference(written) else value


DEBUG = {
    "train.epochs": 1,
    "train.limit_batches": 4,
    "train.anomaly": True,
    "train.schedule": {"kind": "constant"},
    "train.stop": None,
    "guard.inspect": [0],
    "check.budget_s": 20,
    "gates": "report",
    "plan": {},
    "trackers": [],
}
"""`--debug`: whether all of it works, in seconds. One epoch of a few batches with the first step looked into; what only
a whole run can answer (gates, plan, schedule, stopping) is left out, and nothing is sent to a tracker."""

PRODUCTION = {"train.checkpoint.every": 200, "guard.policy": "rollback"}
"""`--production`: where the file says nothing, a kill costs 200 steps at most and a bad batch does not end the run."""


def load_config(path: str | Path, *, changes: Iterable[str] = (), profile: str | None = None) -> Config:
    """Read a file, put a profile over it, apply `--set train.epochs=3` changes, and check all of it."""
    document = read_yaml(path)
    if profile == "debug":
        for key, value in DEBUG.items():
            _put(document.tree, key, value)
        _put(document.tree, "name", f"{document.tree.get('name', 'run')}-debug")
    elif profile == "production":
        for key, value in PRODUCTION.items():
            _put(document.tree, key, value, over=False)
    for change in changes:
        _apply(document, change)
    config = check_config(document)
    if profile == "production":
        _require_judged(config)
    return config


def _require_judged(config: Config) -> None:
    """A run that counts is one that somebody has said what to expect of, and of which nothing was left out."""
    settings = config.settings
    lacking = {
        "gates": "what the run must reach" if not isinstance(settings.gates, dict) else "",
        "check.skip": "nothing skipped" if settings.check.skip else "",
        "train.limit_batches": "all of the data" if settings.train.limit_batches else "",
    }
    mistakes = [f"{config.place}: {key}: --production expects {words}." for key, words in lacking.items() if words]
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def config_from(text: str, *, place: str = "run.yaml") -> Config:
    """Read a configuration from text."""
    return check_config(parse_yaml(text, place=place))


def train_settings(given: Mapping[str, Any]) -> TrainSettings:
    """The section `train` as a script gives it."""
    document = Document({"train": dict(given)}, {}, "train")
    try:
        return TrainSettings.model_validate(dict(given))
    except ValidationError as invalid:
        mistakes = [words for error in invalid.errors() for words in _in_words(_below("train", error), document)]
        raise ConfigError("\n".join(mistakes)) from None


def _below(section: str, error: Any) -> dict[str, Any]:
    return {**error, "loc": (section, *error["loc"])}


def check_config(document: Document) -> Config:
    """All mistakes at once, or a Config."""
    mistakes: list[str] = []
    values: Any = document.tree
    try:
        values = looked_up(document.tree, place=document.place)
    except ConfigError as unset:
        mistakes.append(str(unset))
    try:
        settings = RunSettings.model_validate(values)
    except ValidationError as invalid:
        for error in invalid.errors():
            mistakes.extend(_in_words(error, document))
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return Config(settings, document.tree, document.place)


def _in_words(error: Any, document: Document) -> Iterator[str]:
    location = [part for part in error["loc"] if not (isinstance(part, str) and part.startswith(("dict[", "literal[")))]
    key = ".".join(str(part) for part in location)
    if error["type"] == "extra_forbidden":
        for unknown in _leaf_keys(key, error["input"]):
            near = nearest_key(unknown)
            hint = f"; did you mean {near}?" if near else "."
            yield f"{document.at(unknown)}: {unknown} is not known here{hint} (config-unknown-key)"
    elif error["type"] == "missing":
        yield f"{document.at(key)}: {key} is missing. Expected {_about(key)}. Add it."
    else:
        written = _written(document.tree, location)
        shown = written if has_reference(written) else error["input"]
        expected = error["msg"][0].lower() + error["msg"][1:]
        yield f"{document.at(key)}: {key}: received {shown!r}. Expected: {expected}."


def _leaf_keys(key: str, value: Any) -> Iterator[str]:
    """A whole unknown section is told key by key: `training.num_epochs` is what the reader looks for."""
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _leaf_keys(f"{key}.{name}", item)
    else:
        yield key


def _written(tree: Any, location: list[Any]) -> Any:
    for part in location:
        if isinstance(tree, Mapping):
            tree = tree.get(part)
        elif isinstance(tree, list) and isinstance(part, int):
            tree = tree[part]
    return tree


def _about(key: str) -> str:
    words = {
        "model": "`model: {use: package.module:function}`",
        "model.use": "an import path 'package.module:function'",
        "data.use": "an import path 'package.module:function'",
    }
    return words.get(key, "a value")


def known_keys(model: type[BaseModel] = RunSettings, prefix: str = "") -> Iterator[str]:
    """Every dotted key that a run.yaml may have."""
    for name, about in model.model_fields.items():
        yield f"{prefix}{name}"
        for kind in (about.annotation, *get_args(about.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from known_keys(kind, f"{prefix}{name}.")


def nearest_key(key: str) -> str | None:
    """The known key that was most likely meant: likeness of the last word counts more than that of the path to it."""

    def likeness(known: str) -> float:
        last, known_last = key.rsplit(".", 1)[-1], known.rsplit(".", 1)[-1]
        shared = bool({w for w in last.split("_") if len(w) > 2} & set(known_last.split("_")))
        words = max(_ratio(last, known_last), 0.8 if shared else 0.0)
        return 0.6 * words + 0.4 * _ratio(key, known)

    best = max(known_keys(), key=likeness)
    return best if likeness(best) > _LIKE_ENOUGH else None


_LIKE_ENOUGH = 0.5
"""Below this a suggestion misleads more often than it helps: two keys then share less than half of their letters."""


def _ratio(left: str, right: str) -> float:
    return difflib.SequenceMatcher(None, left, right).ratio()


def _apply(document: Document, change: str) -> None:
    """One `--set a.b=value`, its value read as YAML."""
    key, separator, text = change.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set: received {change!r}. Expected key=value, such as train.epochs=3.")
    _put(document.tree, key.strip(), parse_yaml(f"value: {text}", place=f"--set {key}").tree["value"])


def _put(tree: dict[str, Any], key: str, value: Any, *, over: bool = True) -> None:
    """Set a dotted key; `over=False` leaves what is there."""
    *parents, last = key.split(".")
    for parent in parents:
        below = tree.setdefault(parent, {})
        if below is None:
            below = tree[parent] = {}
        if not isinstance(below, dict):
            raise ConfigError(f"--set: {key}: {parent} holds a value, not a section.")
        tree = below
    if over or last not in tree:
        tree[last] = value
