"""Experiments: the same steps from the same start, with one proposed cause removed.

Each experiment is a value: what to change on the live model (a context manager), what to do to every batch, and in
which units to judge. None of them trains anything but the model it is given, which the caller holds preserved.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tsguard.backend import attributes
from tsguard.dataset import Data, leaves, map_leaves
from tsguard.diagnosis.record import Record
from tsguard.evidence import Curve
from tsguard.padding import Padding
from tsguard.probes import changes
from tsguard.probes.answers import draw_weights
from tsguard.probes.padded import neutralised
from tsguard.probes.score import Judged, judge
from tsguard.probes.stage import Batch, flat, get_ready
from tsguard.probes.trial import STEP_WEIGHT, Trial, run_trial, stream

Change = Callable[[Any], Any]
"""Model -> context manager."""


@dataclass(frozen=True)
class Experiment:
    """One thing removed, named by what is done."""

    code: str
    name: str
    change: Change | None = None
    on_batch: Callable[[Batch], Batch] | None = None
    """Done to every batch, and to the rows on which the model is judged."""
    prepare: Callable[[Any, int], None] | None = None
    """Done once to the restored model before the first step; the number is the repetition's seed."""
    fit: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `fit` that differ."""
    data: Data | None = None
    model: Callable[[Any], Any] | None = None
    """Another model in place of the recorded one (a wider one); compiled, and thrown away afterwards."""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a trial came to."""

    trial: Trial
    judged: Judged | None

    @property
    def skill(self) -> float:
        return 0.0 if self.judged is None or self.trial.failed or not self.trial.finite else self.judged.skill

    def curve(self, name: str) -> Curve:
        losses = self.trial.losses
        every = max(1, len(losses) // 400)
        kept = range(0, len(losses), every)
        return Curve(name, tuple(float(i) for i in kept), tuple(losses[i] for i in kept))


def carry_out(
    record: Record,
    experiment: Experiment | None,
    sample: Batch,
    *,
    steps: int,
    seconds: float,
    seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Restore the start, change what the experiment changes, run, and judge on the training rows."""
    model = record.model
    record.start.restore(model)
    if experiment is None:
        experiment = Experiment("", "as configured")
    if experiment.model is not None:
        model = experiment.model(model)
    if experiment.prepare is not None:
        experiment.prepare(model, seed)
    fit = {**record.fit, **experiment.fit}
    data = experiment.data or record.data
    change = experiment.change(model) if experiment.change is not None else contextlib.nullcontext()
    with change:
        trial = run_trial(
            model, stream(data, fit, seed=seed), steps, seconds=seconds, on_batch=experiment.on_batch, clock=clock
        )
        judged = judge(model, sample if experiment.on_batch is None else experiment.on_batch(sample))
    return Outcome(trial, judged)


# ---------------------------------------------------------------- the things that can be removed


def rate(factor: float) -> Experiment:
    """The learning rate multiplied."""
    code = "lr-too-high" if factor < 1 else "lr-too-low"
    return Experiment(
        code,
        f"learning rate × {factor:g}",
        change=lambda model: changes.rate_times(model, factor),
        remedy=f"Multiply the learning rate by {factor:g}.",
    )


def usual_momentum() -> Experiment:
    """Momentum of 0.9."""
    from tsguard.backend import optimizers_of

    def change(model: Any) -> Any:
        return attributes([(one, "momentum", 0.9) for one in optimizers_of(model) if "momentum" in vars(one)])

    return Experiment("lr-too-high", "momentum 0.9", change=change, remedy="momentum=0.9")


def scaled_inputs(data: Data) -> Experiment:
    """Floating inputs standardised per feature, with the moments of the training rows."""
    moments = _moments(data, "x")

    def scale(batch: Batch) -> Batch:
        return Batch(_scaled(batch.x, moments), batch.y, batch.sample_weight)

    return Experiment(
        "data-scale",
        "inputs standardised",
        on_batch=scale,
        remedy="Standardise each input feature with the training part's mean and deviation (tsguard.data.scalers).",
    )


def without_constants(data: Data) -> Experiment | None:
    """Features that never vary are zero: what they add to every unit is gone, and nothing else. None without any."""
    import torch

    found = _moments(data, "x")
    if not any(moment is not None and bool((moment[2] & (moment[0] != 0)).any()) for moment in found):
        return None
    moments = [None if m is None else (torch.where(m[2], m[0], 0.0), torch.ones_like(m[1])) for m in found]

    def silence(batch: Batch) -> Batch:
        return Batch(_scaled(batch.x, moments), batch.y, batch.sample_weight)

    return Experiment(
        "data-constant", "constant features silenced", on_batch=silence, remedy="Drop the features that never vary."
    )


def scaled_targets(data: Data) -> Experiment:
    """Floating targets standardised; judged in the same units."""
    moments = _moments(data, "y")

    def scale(batch: Batch) -> Batch:
        return Batch(batch.x, _scaled(batch.y, moments), batch.sample_weight)

    return Experiment(
        "data-scale",
        "targets standardised",
        on_batch=scale,
        remedy="Standardise the targets with the training part's mean and deviation, and invert for the metrics.",
    )


def _moments(data: Data, side: str) -> list[Any]:
    import torch

    batches = [getattr(b, side) for b in _some(data)]
    columns = zip(*(list(leaves(b)) for b in batches), strict=True)
    found: list[Any] = []
    for column in columns:
        joined = torch.cat(list(column))
        if not joined.is_floating_point() or joined.ndim < 1:
            found.append(None)
            continue
        axes = tuple(range(joined.ndim - 1)) if joined.ndim > 1 else (0,)
        mean = joined.mean(axes, keepdim=True)
        deviation = joined.std(axes, keepdim=True, correction=0)
        still = deviation == 0
        found.append((mean, torch.where(still, torch.ones_like(deviation), deviation), still))
    return found


def _some(data: Data) -> list[Batch]:
    from tsguard.probes.score import sample

    made = sample(data, 1024)
    return [] if made is None else [made]


def _scaled(structure: Any, moments: list[Any]) -> Any:
    waiting = iter(moments)
    return map_leaves(lambda leaf: _one_scaled(leaf, next(waiting)), structure)


def _one_scaled(leaf: Any, moment: Any) -> Any:
    if moment is None:
        return leaf
    mean, deviation = moment[:2]
    return (leaf - mean) / deviation


def balanced(labels: Any, *, steps: bool = False) -> Experiment:
    """Every class given the same weight in all: classes of rows, or of their steps."""
    import numpy as np

    names, counts = np.unique(np.asarray(labels).reshape(-1).astype(int), return_counts=True)
    weights = {int(n): float(counts.sum() / (len(names) * c)) for n, c in zip(names, counts, strict=True)}
    told = {k: round(v, 2) for k, v in weights.items()}
    remedy = f"sample_weight of each step: {told} by its label" if steps else f"class_weight={told}"
    key = STEP_WEIGHT if steps else "class_weight"
    return Experiment("data-imbalance", "classes weighted", fit={key: weights}, remedy=remedy)


def quick_statistics() -> Experiment:
    """Moving statistics of BatchNormalization that follow within a few dozen steps."""
    import keras

    def change(model: Any) -> Any:
        layers = model._flatten_layers(include_self=False, recursive=True)
        norms = [one for one in layers if isinstance(one, keras.layers.BatchNormalization)]
        return attributes([(one, "momentum", 0.9) for one in norms])

    return Experiment("train-eval-gap", "momentum 0.9", change=change, remedy="BatchNormalization(momentum=0.9)")


def mixed_order(data: Data | None = None) -> Experiment:
    """Rows dealt in random order; for a loader, rows that were read from it."""
    remedy = "model.fit(…, shuffle=True)" if data is None else "Let the loader shuffle its rows before it cuts batches."
    return Experiment("data-order", "rows shuffled", fit={"shuffle": True}, data=data, remedy=remedy)


def usual_weights() -> Experiment:
    """Kernels drawn anew at their usual size."""

    def prepare(model: Any, seed: int) -> None:
        import torch

        draw_weights(model, 1.0, torch.Generator().manual_seed(seed), turning=True)

    return Experiment("init-scale", "weights drawn anew", prepare=prepare, remedy="Use glorot_uniform or he_normal.")


def clipped(threshold: float = 1.0) -> Experiment:
    """Gradients clipped by their global norm."""
    return Experiment(
        "exploding-gradient",
        f"global_clipnorm={threshold:g}",
        change=lambda model: changes.with_clipping(model, threshold),
        remedy=f"Give the optimizer global_clipnorm={threshold:g}.",
    )


def unclipped() -> Experiment:
    """Clipping off."""
    return Experiment(
        "clip-saturated", "without clipping", change=changes.without_clipping, remedy="Raise the clip threshold."
    )


def without_term(number: int, name: str) -> Experiment:
    """One addend of the loss switched off."""
    return Experiment(
        "loss-term-dominates",
        f"without loss term {name}",
        change=lambda model: changes.without_term(number),
        remedy=f"Take loss term {name} away, or weigh it down until its gradient is of the others' order.",
    )


def no_dropout() -> Experiment:
    """Dropout off."""
    return Experiment(
        "over-regularised", "without dropout", change=changes.without_dropout, remedy="Use dropout of 0.1 to 0.5."
    )


def no_penalties() -> Experiment:
    """Regularisers, weight decay and constraints off."""

    def change(model: Any) -> Any:
        return changes.all_at_once(
            changes.without_penalties(model), changes.without_decay(model), changes.without_constraints(model)
        )

    return Experiment(
        "over-regularised",
        "without penalties, decay and constraints",
        change=change,
        remedy="Divide the regularisers' factors (or weight_decay) by 100.",
    )


WIDER = 8
"""Factor by which hidden layers are widened: far beyond what a sensible width could be off by."""


def widened() -> Experiment:
    """Every hidden layer wider, outputs as they are."""
    return Experiment(
        "under-capacity",
        f"hidden layers {WIDER} times as wide",
        model=_wider,
        remedy="Widen the narrowest hidden layer.",
    )


def _wider(model: Any) -> Any:
    """A wider copy through Keras' own configuration; raises where a model has none or its shapes do not allow it."""
    import keras

    outputs = {tensor._keras_history.operation.name for tensor in model.outputs}

    def made(layer: Any) -> Any:
        config = layer.get_config()
        for name in ("units", "filters"):
            if isinstance(config.get(name), int) and layer.name not in outputs and not _feeds_output(layer, outputs):
                config[name] *= WIDER
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=made)
    copy.compile_from_config(model.get_compile_config())
    return copy


def _feeds_output(layer: Any, outputs: set[str]) -> bool:
    """Whether only activations and reshapes stand between a layer and an output: its width is the output's."""
    import keras

    plain = (keras.layers.Activation, keras.layers.Softmax, keras.layers.ReLU, keras.layers.Reshape)
    waiting = [layer]
    while waiting:
        for node in waiting.pop()._outbound_nodes:
            following = node.operation
            if isinstance(following, plain):
                if following.name in outputs:
                    return True
                waiting.append(following)
    return False


def unfrozen() -> Experiment:
    """Every layer trainable, with an optimizer that knows them all."""
    return Experiment(
        "disconnected-parameters",
        "every layer trainable",
        change=changes.unfrozen,
        remedy="Set `trainable = True` on the frozen layers and compile again, or load weights into them first.",
    )


def leaking_relu() -> Experiment:
    """Every relu replaced by one that leaks."""
    import keras

    def change(model: Any) -> Any:
        layers = [
            layer
            for layer in model._flatten_layers(include_self=False, recursive=True)
            if getattr(layer, "activation", None) is keras.activations.relu
        ]
        return attributes([(layer, "activation", keras.activations.leaky_relu) for layer in layers])

    return Experiment("dead-units", "leaky relu in place of relu", change=change, remedy="activation='leaky_relu'")


def open_activations() -> Experiment:
    """Every hidden tanh or sigmoid replaced by one that does not close."""
    import keras

    closed = (keras.activations.tanh, keras.activations.sigmoid, keras.activations.hard_sigmoid)

    def change(model: Any) -> Any:
        listed = [
            one for one in model._flatten_layers(include_self=False, recursive=True) if hasattr(one, "activation")
        ]
        # The last one belongs to the loss; gates and states of recurrent cells are made for what they have.
        hidden = [one for one in listed[:-1] if one.activation in closed and not hasattr(one, "recurrent_activation")]
        return attributes([(one, "activation", keras.activations.gelu) for one in hidden])

    return Experiment(
        "saturated-units",
        "gelu in place of tanh and sigmoid",
        change=change,
        remedy="activation='gelu' (hidden layers)",
    )


def more_precise() -> Experiment:
    """float32 where layers compute in half, else float64."""
    return Experiment(
        "precision-overflow",
        "computed in twice the precision",
        change=changes.twice_as_precise,
        remedy="Compute the part that overflows (or cancels) in the wider type: Layer(dtype='float32').",
    )


def keras_own_step(code: str) -> Experiment:
    """Keras' own `train_step`, with an optimizer that knows every variable, in place of the user's."""

    return Experiment(
        code,
        "Keras' own train_step, optimizer rebuilt with all variables",
        change=lambda model: changes.all_at_once(changes.rebuilt_optimizer(model), changes.with_kerass_step(model)),
        remedy="In `train_step`: self.zero_grad() before backward, and apply the gradients of all "
        "`self.trainable_variables`; compile after the last layer is made.",
    )


def neutral_padding(padding: Padding) -> Experiment:
    """What stands in padded positions replaced by what carries no information: means of the valid, the last time."""
    return Experiment(
        "pad-leak-value",
        "padding neutralised",
        on_batch=lambda batch: Batch(neutralised(batch.x, padding), batch.y, batch.sample_weight),
        remedy="Fill padding with finite neutral values, and pass the mask to every layer that mixes timesteps.",
    )


def right_loss(code: str, kind: str) -> Experiment:
    """A loss that asks for classes or for yes and no (cross entropy, of probabilities or logits), or for values."""
    import keras
    from keras import ops

    def squared(y: Any, p: Any) -> Any:
        target, answer = flat(y)[0], flat(p)[0]
        return ops.mean(ops.square(ops.reshape(ops.cast(target, answer.dtype), answer.shape) - answer))

    def yes_or_no(y: Any, p: Any) -> Any:
        target, answer = flat(y)[0], flat(p)[0]
        inside = bool((answer.detach() >= 0).all()) and bool((answer.detach() <= 1).all())
        wanted = ops.reshape(ops.cast(target, answer.dtype), answer.shape)
        return ops.mean(keras.losses.binary_crossentropy(wanted, answer, from_logits=not inside))

    function, name, remedy = {
        "classes": (
            changes.cross_entropy,
            "cross entropy over the classes",
            "loss='sparse_categorical_crossentropy' (class numbers) or 'categorical_crossentropy' (one-hot)",
        ),
        "yes or no": (yes_or_no, "cross entropy of yes and no", "loss='binary_crossentropy', behind a sigmoid"),
        "values": (squared, "squared error, shapes equal", "loss='mse', with targets of the output's shape"),
    }[kind]
    return Experiment(code, name, change=lambda model: changes.loss_replaced(model, function), remedy=remedy)


def with_last_activation(code: str, layer: Any, activation: str) -> Experiment:
    """The last activation replaced."""
    import keras

    function = keras.activations.get(activation)
    return Experiment(
        code,
        f"last activation {activation}",
        change=lambda model: attributes([(layer, "activation", function)]),
        remedy=f"{layer.name}: activation={activation!r}",
    )


def paired(data: Data, code: str, name: str, remedy: str) -> Experiment:
    """Other pairs of inputs and targets."""
    return Experiment(code, name, data=data, remedy=remedy)


def validation_pairs(data: Data) -> Experiment:
    """Trained on pairs of the validation part: where they teach what the training pairs do not, those are mispaired."""
    return Experiment(
        "data-mispaired",
        "trained on pairs of the validation part",
        data=data,
        remedy="Compare how training and validation rows are read: x and y of the training part belong to other rows.",
    )


def ready(record: Record) -> None:
    """Build what a run would build, from the first batch."""
    get_ready(record.model, next(stream(record.data, record.fit)))
