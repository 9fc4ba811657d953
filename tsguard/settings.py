"""The sections of run.yaml, as strict models. A setting that is not here is a mistake; one never read is a finding.

Every section notes which of its fields were read, because an option that is written, accepted and then ignored is how
runs come to differ from what their owners believe.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from tsguard.padding import Padding


class Section(BaseModel):
    """A group of settings that notes what was read of it."""

    model_config = ConfigDict(extra="forbid", strict=False, frozen=True, arbitrary_types_allowed=True)
    _read: set[str] = PrivateAttr(default_factory=set)

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if not name.startswith("_") and name in type(self).model_fields:
            private = super().__getattribute__("__pydantic_private__")
            if private is not None:
                private["_read"].add(name)
        return value

    def unread(self, prefix: str = "") -> Iterator[str]:
        """Dotted names of the settings that were given and never read. A section nobody opened counts as one."""
        given, read = self.model_fields_set, set(self._read)
        for name in type(self).model_fields:
            if name not in given:
                continue
            dotted = f"{prefix}{name}"
            if name not in read:
                yield dotted
            elif isinstance(value := self.__dict__[name], Section):
                yield from value.unread(f"{dotted}.")


class Use(Section):
    """A function by import path, and its arguments."""

    use: str
    args: dict[str, Any] = Field(default_factory=dict)


class DataUse(Use):
    """The function that makes the data, and the one that makes inputs of a table of new data."""

    inputs: str | None = None
    """`module:function`: takes a table (a pandas frame) and returns x; what `tsguard predict RUN table.csv` calls."""


class PaddingSettings(Section):
    """tsguard.Padding, field by field."""

    inputs: dict[str, int] | None = None
    mask: str | None = None
    outputs: int | None = 1
    pad_value: float = 0.0
    side: Literal["right", "left"] = "right"
    causal: bool = False
    features: tuple[int, str] | None = None
    timestamps: str | None = None
    either_side: bool = False
    feature_sets: bool = False

    def value(self) -> Padding:
        """The Padding itself."""
        return Padding(**{name: getattr(self, name) for name in type(self).model_fields})


class GuardSettings(Section):
    """The guard's options; see tsguard.Guard."""

    policy: Literal["stop", "raise", "skip", "rollback"] = "stop"
    sync_every: int | Literal["auto"] = "auto"
    inspect: list[int] = Field(default_factory=list)
    diagnose: bool = True
    repro: bool | Literal["auto"] = "auto"
    budget_s: float = Field(default=60, gt=0)
    max_recoveries: int = Field(default=3, ge=0)
    activations: bool | str | list[str] = False
    """Layers to listen to, by name or path; true for all."""
    names: list[str] | dict[str, list[str]] | None = None
    """Names of the features, of one input or by input; the data function's own where nothing is said."""
    ids: str | None = None
    """The column of the data function's `rows` that names each sample."""
    stall_s: float | None = Field(default=120, gt=0)


class CheckSettings(Section):
    """What the preflight may cost, and what it leaves out."""

    budget_s: float = Field(default=60, gt=0)
    skip: list[str] = Field(default_factory=list)


class StopSettings(Section):
    """Early stopping on a metric or a composite of metrics."""

    monitor: str = "val_loss"
    mode: Literal["min", "max"] = "min"
    patience: int = Field(default=5, ge=0)
    min_delta: float = Field(default=0.0, ge=0)
    warmup: int = Field(default=0, ge=0)
    """Epochs before which nothing is judged."""
    restore: bool = True
    """End with the weights of the best epoch."""


class ScheduleSettings(Section):
    """How the learning rate changes."""

    kind: Literal["constant", "warmup_cosine", "plateau", "one_cycle"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    steps: int | None = Field(default=None, gt=0)
    """Steps until the end of the schedule; the whole run by default."""
    floor: float = Field(default=0.0, ge=0)
    patience: int = Field(default=3, ge=1)
    factor: float = Field(default=0.5, gt=0, lt=1)


class CheckpointSettings(Section):
    """Which checkpoints are kept, and how often one is made."""

    every: int = Field(default=0, ge=0)
    """Steps between checkpoints; 0: at the end of every epoch."""
    keep: int = Field(default=3, ge=1)
    monitor: str = "val_loss"
    mode: Literal["min", "max"] = "min"


class ValidationSettings(Section):
    """Rows that are held out of training under a name. One of `last`, `entities` and `values` chooses them."""

    by: str | None = None
    """A column that the data function returns in `rows`; the order of the rows where none is named."""
    last: float | None = Field(default=None, gt=0, lt=1)
    """A share: the latest rows."""
    entities: float | None = Field(default=None, gt=0, lt=1)
    """A share of the entities, with all of their rows."""
    values: list[Any] | None = None
    """The rows that have one of these values."""
    purge: int = Field(default=0, ge=0)
    """Rows before the border that neither trains nor validates on: the length of a window less one."""


class TrainSettings(Section):
    """What `model.fit` gets, and what is set up around it."""

    epochs: int = Field(default=1, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    steps_per_epoch: int | None = Field(default=None, ge=1)
    validation_split: float = Field(default=0.0, ge=0, lt=1)
    validation: dict[str, ValidationSettings] = Field(default_factory=dict)
    """Sets by name, cut out of the training rows; the first is `val_loss` where the data has no validation itself."""
    validation_freq: int = Field(default=1, ge=1)
    shuffle: bool = True
    class_weight: dict[int, float] | None = None
    learning_rate: float | None = Field(default=None, gt=0)
    rates: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Factors on the rate, by the name or path of a layer (`block_*`); of several that match the last one holds."""
    freeze: dict[str, bool | Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Epochs at the beginning in which a layer is not trained, or true: never."""
    schedule: ScheduleSettings = ScheduleSettings()
    precision: Literal["float32", "float16", "bfloat16"] | None = None
    accumulate: int | None = Field(default=None, ge=1)
    clip_norm: float | None = Field(default=None, gt=0)
    ema: float | None = Field(default=None, gt=0, lt=1)
    limit_batches: int | None = Field(default=None, ge=1)
    """Train and validate on so many batches only: to see whether all of it works."""
    anomaly: bool = False
    """torch's anomaly mode: an error in the backward pass names the line of the forward pass. Several times slower."""
    stop: StopSettings | None = None
    checkpoint: CheckpointSettings = CheckpointSettings()


class TrackerSettings(Section):
    """One experiment tracker."""

    kind: Literal["tensorboard", "wandb"]
    every: int = Field(default=0, ge=0)
    """Steps between points within an epoch (loss and gradient norm of that step); 0: epochs alone."""
    args: dict[str, Any] = Field(default_factory=dict)


class PlanSettings(Section):
    """What the run should look like; a number, or a range "25..50"."""

    samples: int | str | None = None
    batches_per_epoch: int | str | None = None
    epochs: int | str | None = None
    duration_min: float | str | None = None
    peak_mb: float | str | None = None
    artifact_mb: float | str | None = None
    price_per_hour: float | None = None
    gpu_used: bool | None = None


class RunSettings(Section):
    """The whole of run.yaml."""

    name: str = "run"
    seed: int = Field(default=0, ge=0)
    deterministic: bool = False
    out: str = "reports"
    model: Use
    data: DataUse | None = None
    padding: PaddingSettings | None = None
    train: TrainSettings = TrainSettings()
    guard: GuardSettings = GuardSettings()
    check: CheckSettings = CheckSettings()
    gates: dict[str, Any] | Literal["report"] | None = None
    baseline: str | None = None
    """An accepted report that relative gates compare with."""
    plan: PlanSettings = PlanSettings()
    trackers: list[TrackerSettings] = Field(default_factory=list)
