"""Rules over the numbers of a run: what counts as broken, and what only looks like it.

Every rule is a plain function or a small state machine over floats; none of them touches a model. A non-finite value
is never learned from. The rule for rises is joint and robust: heavy-tailed losses of healthy runs jump by a factor
of four now and then, but not three times in five steps, and not together with their gradients.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

HISTORY = 64
"""Steps that the baseline looks back over: long enough for a median and a spread, short enough to follow a falling
curve."""

HISTORY_MIN = 16
"""Fewer steps say nothing about the spread yet."""

RECENT = 5
"""A rise must hold in the median of this many steps: three of five. One or two heavy-tailed steps do not make it."""

RISE = math.log(4.0)
"""Least lasting rise of the log-loss: fourfold. Warm restarts and hard batches stay below, a tenfold rise is well
above."""

RISE_SPREADS = 3.0
"""… and this many spreads (1.4826 · MAD) above the baseline; at a spread of 0.5 that is a factor of 4.5."""

SPIKE_SPREADS = 8.0
"""A single step counts only where loss *and* gradient norm stand this many spreads above their baselines."""

TAIL_SHARE = 0.01
"""Where the loss jumps as far once in so many steps, three times at least, and is back at once, its batches are so."""

SPREAD_FLOOR = 0.05
"""The log-spread is never taken as smaller: a loss that is almost constant would make everything a rise."""

CLIP_SHARE = 0.95
"""A clip that is active in this share of the steps is no safeguard any more but the learning rate itself."""

CLIP_STEPS = 50
"""… over at least this many steps: at the start of training clips are active by design."""

AMP_SKIPS = 10
"""Consecutive steps skipped by the loss scaler. From 2¹⁵ the scale has then fallen to 2⁵; a healthy start needs two
or three."""

AMP_SHARE = 0.2
"""… or this share of all steps, from AMP_STEPS on: a healthy scaler probes upwards once in 2,000 steps."""

AMP_STEPS = 100
"""Steps before a share means anything."""

REFRESH = 8
"""The baseline is worked out anew every so many steps: it moves slowly, and medians cost more than the rest of the
rule."""

UNCHANGED_STEPS = 20
"""Steps with updates after which a weight that still has its first bits is taken as one that never changes."""

NO_LEARNING_STEPS = 100
"""A run shorter than this is not judged on whether it learns."""

NO_LEARNING_DROP = 0.01
"""Less than one percent lower at the end than at the start, and less than its own noise: nothing was learned."""

LOADER_SHARE = 0.5
"""More than half of the time spent waiting for data …"""

LOADER_STEPS = 20
"""… over so many steps: the first batch of an epoch is always waited for."""

LOADER_SECONDS = 0.02
"""… and this long a step: a tiny model spends half its time in Keras' own loop, which nobody needs to be told."""


@dataclass(frozen=True)
class Rise:
    """A rise that the joint rule found."""

    step: int
    lasting: bool
    factor: float
    """Loss now over its baseline."""
    gradient_factor: float | None


class _Level(NamedTuple):
    """What the values of the past were like."""

    middle: float
    spread: float
    usual: float
    """What as many of the latest half have reached as make a rise among the RECENT: of two levels, the upper one. A
    rise stands at twice that (half of RISE) at least."""
    highest: float
    """… and what one of them has reached."""


class _Baseline:
    """The level of the last values, leaving out the most recent ones, which are under judgement."""

    def __init__(self) -> None:
        self.values: deque[float] = deque(maxlen=HISTORY + RECENT)
        self._age = REFRESH
        self._level: _Level | None = None

    def add(self, value: float) -> None:
        self.values.append(value)
        self._age += 1
        if self._age >= REFRESH:
            self._level, self._age = self._worked_out(), 0

    @property
    def level(self) -> _Level | None:
        """The level, at most REFRESH steps old. None while there is too little history."""
        return self._level

    @property
    def recent(self) -> float:
        return median(list(self.values)[-RECENT:])

    def _worked_out(self) -> _Level | None:
        old = list(self.values)[:-RECENT]
        if len(old) < HISTORY_MIN:
            return None
        middle = median(old)
        spread = max(1.4826 * median([abs(value - middle) for value in old]), SPREAD_FLOOR)
        late = sorted(old[len(old) // 2 :])  # where a young run began says nothing of how high it stands now and then
        return _Level(middle, spread, late[-(RECENT // 2 + 1)], late[-1])


class JointRise:
    """Log-loss and log gradient norm, judged together, one step at a time."""

    def __init__(self) -> None:
        self._loss, self._gradient = _Baseline(), _Baseline()
        self._no_spike_until = self._no_rise_until = -1

    def add(self, step: int, loss: float | None, gradient: float | None = None) -> Rise | None:
        """The next step; a Rise where one is found. After a rise the rule is quiet until the baseline is new; a jump of
        one step silences other jumps alone, as what follows it may stay."""
        if loss is None or not math.isfinite(loss) or (gradient is not None and not math.isfinite(gradient)):
            return None
        if abs(loss) <= _TINY:  # a margin that is kept by the whole batch has no level that another step could leave
            return None
        log_loss = _log(loss)
        self._loss.add(log_loss)
        if gradient is not None:
            self._gradient.add(_log(gradient))
        if step < self._no_rise_until:
            return None
        level = self._loss.level
        if level is None or log_loss <= level.middle + RISE:  # most steps end here
            return None
        rise = self._lasting(step, level)
        if rise is not None:
            self._no_rise_until = step + HISTORY
        elif step >= self._no_spike_until:
            rise = self._spike(step, log_loss, gradient, level)
        if rise is not None:
            self._no_spike_until = step + HISTORY
        return rise

    def _lasting(self, step: int, level: _Level) -> Rise | None:
        over = self._loss.recent - level.middle
        if over <= max(RISE, RISE_SPREADS * level.spread) or self._loss.recent <= level.usual + 0.5 * RISE:
            return None
        gradient = self._gradient.level
        grown = self._gradient.recent - gradient.middle if gradient is not None else None
        return Rise(
            step, lasting=True, factor=math.exp(over), gradient_factor=None if grown is None else math.exp(grown)
        )

    def _spike(self, step: int, log_loss: float, gradient: float | None, level: _Level) -> Rise | None:
        slope = self._gradient.level
        if slope is None or gradient is None or log_loss <= level.highest:
            return None
        over, grown = log_loss - level.middle, _log(gradient) - slope.middle
        if over > max(RISE, SPIKE_SPREADS * level.spread) and grown > max(RISE, SPIKE_SPREADS * slope.spread):
            return Rise(step, lasting=False, factor=math.exp(over), gradient_factor=math.exp(grown))
        return None


def _log(value: float) -> float:
    """Log of a loss that may be negative or 0: symmetric, linear around 0, so that no sign crosses a pole."""
    return math.copysign(math.log1p(abs(value) / _TINY), value)


_TINY = 1e-8
"""Below this a loss counts as 0. The log is then at most 18 away from that of 1."""


def of_the_batches(losses: Sequence[tuple[int, float]], rise: Rise) -> bool:
    """Whether a jump is how the batches of this run are: the loss goes as far again and again, and is back at once.

    Giants among the targets make such batches. A step that hurt the model shows in the steps after it.
    """
    top = dict(losses).get(rise.step)
    if top is None or not all(math.isfinite(value) for _, value in losses):
        return False
    halfway = _log(top) - 0.5 * math.log(max(rise.factor, 1.0))
    far = [_log(value) > halfway for _, value in losses]
    returns = sum(before and not after for before, after in itertools.pairwise(far))
    return returns >= max(RECENT // 2 + 1, TAIL_SHARE * len(far)) and sum(far) <= 2 * returns


def recovered(losses: Sequence[float], rise: Rise, first_step: int = 0) -> bool:
    """Whether the end of the run is back below the rise: half of it, in logs."""
    before = [_log(value) for value in losses[: max(rise.step - first_step - RECENT, 1)] if math.isfinite(value)]
    after = [_log(value) for value in losses[-2 * RECENT :] if math.isfinite(value)]
    if not before or not after:
        return False
    return median(after) < median(before[-HISTORY:]) + 0.5 * math.log(max(rise.factor, 1.0))


@dataclass
class AmpSkips:
    """Steps that the loss scaler left out without a word."""

    steps: int = 0
    skipped: int = 0
    in_a_row: int = 0
    told: bool = False

    def add(self, *, skipped: bool) -> bool:
        """True where it has become too many."""
        self.steps += 1
        self.skipped += skipped
        self.in_a_row = self.in_a_row + 1 if skipped else 0
        too_many = self.in_a_row >= AMP_SKIPS or (self.steps >= AMP_STEPS and self.skipped >= AMP_SHARE * self.steps)
        first, self.told = too_many and not self.told, self.told or too_many
        return first


def no_learning(losses: Sequence[float]) -> bool:
    """Whether the loss at the end is where it was at the start, within a percent and within its own noise."""
    finite = [value for value in losses if math.isfinite(value)]
    if len(finite) < NO_LEARNING_STEPS:
        return False
    part = max(len(finite) // 10, RECENT)
    start, end = finite[:part], finite[-part:]
    first, last = median(start), median(end)
    noise = 1.4826 * median([abs(value - last) for value in end]) / math.sqrt(part)
    drop = first - last
    return drop <= NO_LEARNING_DROP * abs(first) and drop <= 3 * noise


LOWER_IS_BETTER = (
    "mse",
    "mae",
    "rmse",
    "error",
    "loss",
    "mape",
    "msle",
    "perplexity",
    "crossentropy",
    "cosine_proximity",
)
HIGHER_IS_BETTER = ("acc", "auc", "r2", "f1", "precision", "recall", "iou", "ndcg", "hit", "mrr", "map", "top_k")

ONE_SIDED = re.compile(r"(?!.*_at_)(.*_)?(precision|recall)(_\d+)?")
"""Metrics that an answer of yes (or no) to everything brings to 1: one falls where the other rises, and what training
buys with it is told by neither alone. Those at a stated value of the other are no such half."""


def metric_disagrees(loss: Sequence[float], metric: Sequence[float], name: str) -> bool:
    """Whether a validation metric gets worse while the loss gets better: opposite order in almost every pair of
    epochs.

    Six epochs or more, and Kendall's τ of at least 0.7 the wrong way round: by chance below one in a hundred.
    """
    pairs = [(a, b) for a, b in zip(loss, metric, strict=False) if math.isfinite(a) and math.isfinite(b)]
    lowered = name.lower()
    higher = any(word in lowered for word in HIGHER_IS_BETTER)
    if (
        len(pairs) < 6
        or ONE_SIDED.fullmatch(lowered)
        or not (higher or any(word in lowered for word in LOWER_IS_BETTER))
    ):
        return False
    if pairs[-1][0] >= pairs[0][0]:
        return False
    sign = 1.0 if higher else -1.0
    score = count = 0
    for i in range(len(pairs)):
        for j in range(i + 1, len(pairs)):
            product = (pairs[j][0] - pairs[i][0]) * (pairs[j][1] - pairs[i][1]) * sign
            score += (product > 0) - (product < 0)
            count += 1
    return score / count >= 0.7
