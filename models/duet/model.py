"""Duet: one patch transformer for sets of any width, self-supervised, supervised, or both at once.

The window is aligned to its last valid step, scaled by its own real cells, cut into patches and encoded. Each objective
asks for a pass of the encoder over its own view of the window; the views of one batch go through it together.
"""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import ops

from models.common import (
    TermLossModel,
    align_last,
    features_of_last,
    masked_mean,
    register,
    scale_instances,
    which_cells,
    widened,
)
from models.duet import losses
from models.duet.layers import PatchEncoder, patchify
from models.precise import at_least_float32
from models.transfer import Transfer, copy_weights

OBJECTIVES = ("forecast", "masked", "order", "contrastive", "cross_domain", "next_patch", "autoencoder")
GOLDEN, SILVER = 0.6180339887498949, 0.4142135623730951
"""Irrational steps: their multiples modulo 1 fill (0, 1) evenly, which gives fixed "noise" without a generator."""


@register
class Duet(TermLossModel):
    """Patch transformer for windows of any length and any number of features.

    Inputs: an array (batch, time, features), or a dict of `values`, and where wanted `mask` (batch, time), or
    (batch, time, features) where single cells are missing, `feature_mask` (batch, features), and `domain` (batch,).
    `objectives` maps names of OBJECTIVES to weights. With "forecast" alone the output is the forecast
    (batch, horizon, features); otherwise it is a dict with what each objective predicted.
    """

    def __init__(
        self,
        context=96,
        horizon=24,
        patch=12,
        stride=None,
        width=32,
        heads=4,
        depth=2,
        dropout=0.1,
        mix_features=True,
        objectives=None,
        mask_ratio=0.15,
        code=8,
        loss="mse",
        pretext_loss="huber",
        temperature=0.2,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        stride = stride or patch
        self.objectives = dict(objectives or {"forecast": 1.0})
        self.settings = {
            "context": context, "horizon": horizon, "patch": patch, "stride": stride, "width": width, "heads": heads,
            "depth": depth, "dropout": dropout, "mix_features": mix_features, "objectives": self.objectives,
            "mask_ratio": mask_ratio, "code": code, "loss": loss, "pretext_loss": pretext_loss,
            "temperature": temperature,
        }  # fmt: skip
        self._refuse_nonsense()
        for name, value in self.settings.items():
            if name not in ("objectives", "loss"):
                setattr(self, name, value)
        self.forecast_kind = loss
        self.patches = (context - patch) // stride + 1
        policy = self.dtype_policy
        self.precise = at_least_float32(policy.compute_dtype)
        hides = "masked" in self.objectives
        self.encoder = PatchEncoder(
            self.patches, patch, width, heads, depth, dropout, mix_features, hides, name="encoder", dtype=policy
        )
        self.noise = keras.random.SeedGenerator(name="noise")
        self.heads_of = {}
        self._make_heads(policy)
        self.track_terms(name for name in OBJECTIVES if name in self.objectives)
        self.build((None, context, None))

    def _refuse_nonsense(self):
        s = self.settings
        unknown = sorted(set(self.objectives) - set(OBJECTIVES))
        if unknown:
            raise ValueError(f"duet objectives: received {unknown}, expected names among {list(OBJECTIVES)}.")
        if s["context"] < s["patch"] or (s["context"] - s["patch"]) % s["stride"]:
            raise ValueError(
                f"duet: patches of {s['patch']} steps every {s['stride']} do not cover a context of {s['context']} "
                "steps exactly. Choose context = patch + n · stride."
            )
        if s["stride"] != s["patch"] and set(self.objectives) - {"forecast"}:
            raise ValueError(
                f"duet: with stride {s['stride']} and patch {s['patch']} the patches overlap, and a hidden patch can "
                "be read from its neighbours. Set stride=patch for self-supervised objectives."
            )

    def _make_heads(self, policy):
        """The heads of the objectives in use, created with the model: one made later would never be trained."""

        def dense(name, inputs, units, activation=None):
            layer = keras.layers.Dense(units, activation=activation, name=name, dtype=policy)
            setattr(self, name, layer)
            self.heads_of[name] = inputs

        flat = self.patches * self.width
        if "forecast" in self.objectives:
            dense("forecast_head", flat, self.horizon)
        if "masked" in self.objectives:
            dense("masked_head", self.width, self.patch)
        if "next_patch" in self.objectives:
            dense("next_head", self.width, self.patch)
        if "order" in self.objectives:
            dense("order_hidden", flat, self.width, "gelu")
            dense("order_head", self.width, 1)
        if {"contrastive", "cross_domain"} & set(self.objectives):
            dense("view_hidden", self.width, self.width, "gelu")
            dense("view_head", self.width, self.width)
        if "autoencoder" in self.objectives:
            dense("code_head", flat, self.code)
            dense("decode_head", self.code, self.patches * self.patch)

    def build(self, input_shape):
        if self.built:
            return
        self.encoder.build((None, None, self.patches, self.patch))
        for name, inputs in self.heads_of.items():
            getattr(self, name).build((None, None, inputs))
        self.built = True

    # The forward pass

    def prepare(self, x):
        """Window to scaled patches, their real cells, and what it takes to scale back: a pure function of x."""
        values, cells = align_last(x, self.context, self.precise)
        scaled, mean, deviation = scale_instances(values, cells)
        return self.cut(scaled), self.cut(cells), mean, deviation

    def cut(self, values):
        """(batch, context, features) to (batch, features, patches, patch)."""
        return patchify(values, self.patch, self.stride)

    def call(self, x, training=False):
        patches, cells, mean, deviation = self.prepare(x)
        wanted = set(self.objectives)
        views = {}
        if wanted & {"forecast", "autoencoder", "order"}:
            views["clean"] = (patches, cells, None)
        if "masked" in wanted:
            views["masked"] = (patches, cells, self.select(cells, training))
        if "order" in wanted:
            views["swapped"] = (*self.swap(patches, cells, training), None)
        if wanted & {"contrastive", "cross_domain"}:
            views["first"] = (*self.augment(patches, cells, 0, training), None)
            views["second"] = (*self.augment(patches, cells, 1, training), None)
        if "next_patch" in wanted:
            views["withheld"] = (*self.withhold(x)[:2], None)
        tokens = self.encode_together(views)
        out = {}
        if "forecast" in wanted:
            out["forecast"] = self.unscale(self.forecast_head(self.flat(tokens["clean"][0])), cells, mean, deviation)
        if "masked" in wanted:
            out["masked"] = self.masked_head(tokens["masked"][0])
            out["selected"] = ops.cast(views["masked"][2], "float32")
        if "order" in wanted:
            out["order"] = ops.concatenate([self.judge_order(*tokens[view]) for view in ("clean", "swapped")], axis=-1)
        if wanted & {"contrastive", "cross_domain"}:
            pair = [self.view_head(self.view_hidden(self.pool(*tokens[view]))) for view in ("first", "second")]
            out["views"] = ops.stack(pair, axis=1)
        if "next_patch" in wanted:
            out["next_patch"] = self.next_head(tokens["withheld"][0][:, :, -1])
        if "autoencoder" in wanted:
            decoded = self.decode_head(self.code_head(self.flat(tokens["clean"][0])))
            out["autoencoder"] = ops.reshape(decoded, ops.shape(patches))
        return out["forecast"] if wanted == {"forecast"} else out

    def encode_together(self, views):
        """One call of the encoder for all views, one after another along the batch."""
        if len(views) == 1:
            [(name, view)] = views.items()
            return {name: self.encoder(*view)}
        batch = [view[0] for view in views.values()], [view[1] for view in views.values()]
        selected = None
        if "masked" in views:
            none = ops.zeros_like(views["masked"][2])
            selected = ops.concatenate([none if view[2] is None else view[2] for view in views.values()], axis=0)
        tokens, mask = self.encoder(ops.concatenate(batch[0], axis=0), ops.concatenate(batch[1], axis=0), selected)
        count = len(views)
        parts = zip(ops.split(tokens, count, axis=0), ops.split(mask, count, axis=0), strict=True)
        return dict(zip(views, parts, strict=True))

    def flat(self, tokens):
        """(batch, features, patches · width): the tokens of a feature side by side; masked ones are 0."""
        return ops.reshape(tokens, (-1, ops.shape(tokens)[1], self.patches * self.width))

    def pool(self, tokens, mask):
        """Mean over the real tokens of a sample: (batch, width)."""
        return masked_mean(tokens, mask[..., None], axis=(1, 2))

    def judge_order(self, tokens, mask):
        """One logit per sample: each feature's tokens are judged side by side (a mean over time knows no order)."""
        judged = masked_mean(self.order_hidden(self.flat(tokens)), ops.any(mask, axis=-1)[..., None], axis=1)
        return self.order_head(judged)

    def unscale(self, ahead, cells, mean, deviation):
        """(batch, features, horizon) in units of the window back to (batch, horizon, features); 0 without a cell."""
        ahead = ops.transpose(widened(ahead), (0, 2, 1)) * deviation + mean
        return ops.where(ops.any(cells, axis=(2, 3))[:, None, :], ahead, 0.0)

    def embed(self, x):
        """The pooled representation of each window: (batch, width)."""
        patches, cells, _, _ = self.prepare(x)
        return self.pool(*self.encoder(patches, cells))

    # The views: random in training, fixed in evaluation, so that a validation loss is a number and not a draw

    def uniform(self, batch, features, stream, training):
        """(batch, features, patches) in (0, 1). Drawn per sample and patch, shifted per feature: padding more features
        does not move the draw of those that are there."""
        if training:
            base = keras.random.uniform((batch, 1, self.patches), dtype="float32", seed=self.noise)
        else:
            base = ops.cast(ops.arange(1, self.patches + 1), "float32")[None, None, :] * GOLDEN + 0.37 * stream
        shifted = base + ops.cast(ops.arange(features), "float32")[None, :, None] * SILVER
        return ops.broadcast_to(shifted - ops.floor(shifted), (batch, features, self.patches))

    def select(self, cells, training):
        """The patches to hide: a share of each feature's real ones, at least one where there are two or more."""
        real = ops.any(cells, axis=-1)
        shape = ops.shape(real)
        noise = ops.where(real, self.uniform(shape[0], shape[1], 0, training), 2.0)
        rank = ops.argsort(ops.argsort(noise, axis=-1), axis=-1)
        count = ops.sum(ops.cast(real, "float32"), axis=-1, keepdims=True)
        hide = ops.maximum(ops.floor(count * self.mask_ratio + 0.5), 1.0)
        hide = ops.where(count >= 2, ops.minimum(hide, count - 1), 0.0)
        return ops.logical_and(real, ops.cast(rank, "float32") < hide)

    def swap(self, patches, cells, training):
        """The later part of each window put before the earlier one, cut at a random patch, or the middle one."""
        first, count = self.span(cells)
        if training:
            share = keras.random.uniform(ops.shape(count), dtype="float32", seed=self.noise)
        else:
            share = 0.5 * ops.ones_like(ops.cast(count, "float32"))
        cut = 1 + ops.cast(ops.floor(share * ops.cast(ops.maximum(count - 1, 0), "float32")), "int32")
        place = ops.arange(self.patches, dtype="int32")[None, :]
        turned = first + ops.mod(place - first + cut, ops.maximum(count, 1))
        index = ops.where(place >= first, turned, place)[:, None, :, None]
        index = ops.broadcast_to(index, ops.shape(patches))
        return ops.take_along_axis(patches, index, axis=2), ops.take_along_axis(cells, index, axis=2)

    def span(self, cells):
        """Index of the first real patch of each sample, and the number of patches from there: (batch, 1) each."""
        real = ops.any(cells, axis=(1, 3))
        place = ops.arange(self.patches, dtype="int32")[None, :]
        first = ops.min(ops.where(real, place, self.patches), axis=1, keepdims=True)
        return first, self.patches - first

    def augment(self, patches, cells, stream, training):
        """A view for the contrastive objectives: jitter, a scale per sample, and a share of patches dropped."""
        shape = ops.shape(patches)
        drop = self.uniform(shape[0], shape[1], 1 + stream, training)
        scale = 1.0 + 0.2 * (self.uniform(shape[0], 1, 3 + stream, training)[:, :, :1, None] - 0.5)
        angle = self.uniform(shape[0], shape[1], 5 + stream, training)[..., None] + GOLDEN * ops.cast(
            ops.arange(self.patch), "float32"
        )
        jitter = 0.1 * ops.sin(2 * math.pi * angle)
        cells = ops.logical_and(cells, (drop > self.mask_ratio)[..., None])
        return ops.where(cells, patches * scale + jitter, 0.0), cells

    def withhold(self, x):
        """The window without its last patch, scaled by what is left, and that patch in the same units.

        The statistics do not see what has to be predicted: with those of the whole window its mean would leak.
        """
        values, cells = align_last(x, self.context, self.precise)
        seen = np.arange(self.context)[None, :, None] < self.context - self.patch
        past = ops.logical_and(cells, seen)
        scaled, mean, deviation = scale_instances(ops.where(past, values, 0.0), past)
        shifted = [
            ops.concatenate([ops.zeros_like(part[:, : self.patch]), part[:, : -self.patch]], axis=1)
            for part in (scaled, past)
        ]
        target = (values[:, -self.patch :] - mean) / deviation
        known = ops.logical_and(cells[:, -self.patch :], ops.any(past, axis=1, keepdims=True))
        target = ops.where(known, target, 0.0)
        turn = (0, 2, 1)
        return self.cut(shifted[0]), self.cut(shifted[1]), ops.transpose(target, turn), ops.transpose(known, turn)

    # The loss

    def loss_terms(self, x, y, y_pred, sample_weight=None):
        """Each objective's loss times its weight; a pure function, whose sum is the loss."""
        if not isinstance(y_pred, dict):
            y_pred = {"forecast": y_pred}
        if self.term_names == ("forecast",):
            features = features_of_last(which_cells(x), self.context)
        else:
            patches, cells, _, _ = self.prepare(x)
            features, valid = ops.any(cells, axis=(2, 3)), ops.any(cells, axis=(1, 2, 3))
        per_sample = None if sample_weight is None else _per_sample(sample_weight)
        terms = {}
        for name in self.term_names:
            if name == "forecast":
                value = losses.forecast_loss(y, y_pred[name], features, sample_weight, self.forecast_kind)
            elif name == "masked":
                value = losses.masked_patch_loss(
                    patches, y_pred[name], y_pred["selected"] > 0.5, cells, per_sample, self.pretext_loss
                )
            elif name == "order":
                value = losses.order_loss(y_pred[name], self.span(cells)[1][:, 0] >= 2, per_sample)
            elif name in ("contrastive", "cross_domain"):
                domain = self._domain_of(x) if name == "cross_domain" else None
                value = losses.contrastive_loss(y_pred["views"], valid, self.temperature, domain, per_sample)
            elif name == "next_patch":
                target, known = self.withhold(x)[2:]
                value = losses.next_patch_loss(target, y_pred[name], known, per_sample, self.pretext_loss)
            else:
                value = losses.autoencoder_loss(patches, y_pred[name], cells, per_sample, self.pretext_loss)
            terms[name] = self.objectives[name] * value
        return terms

    @staticmethod
    def _domain_of(x):
        if not isinstance(x, dict) or "domain" not in x:
            raise ValueError(
                "duet: the objective 'cross_domain' needs the input 'domain' (batch,): the set of each window."
            )
        return x["domain"]

    # Configuration and transfer

    def get_config(self):
        return {**super().get_config(), **self.settings}

    @classmethod
    def from_pretrained(cls, source, **changes):
        """A model of the same encoder with other objectives or horizon: `Duet.from_pretrained("run/model.keras")`.

        Returns (model, transfer): which tensors were loaded, which were not and why. `source` is a Duet or a
        `.keras` file.
        """
        if not isinstance(source, Duet):
            source = keras.saving.load_model(source, compile=False)
        settings = {**source.settings, "objectives": {"forecast": 1.0}, **changes}
        model = cls(**settings, dtype=source.dtype_policy)
        transfer = copy_weights(source.encoder, model.encoder)
        for name in model.heads_of:
            if name in source.heads_of:
                transfer += copy_weights(getattr(source, name), getattr(model, name))
            else:
                fresh = {
                    v.path: "a head that the source does not have: it starts fresh"
                    for v in getattr(model, name).weights
                }
                transfer += Transfer(not_loaded=fresh)
        for name in set(source.heads_of) - set(model.heads_of):
            gone = {v.path: "the head of an objective that is not used here" for v in getattr(source, name).weights}
            transfer += Transfer(unused=gone)
        return model, transfer


def _per_sample(sample_weight):
    """One weight for each sample, the mean of those that came per step or cell."""
    weight = widened(sample_weight)
    return weight if len(ops.shape(weight)) == 1 else ops.mean(weight, axis=tuple(range(1, len(ops.shape(weight)))))
