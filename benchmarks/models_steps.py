"""What a training step of duet and moola costs, duet beside a hand-written torch twin that computes the same function.

`python -m benchmarks.models_duet_moola throughput` prints it.
"""

from __future__ import annotations

import time

import keras
import numpy as np

from models import duet, moola


def torch_twin(model):
    """Hand-written torch of a supervised Duet: the same function of the same weights, masks and all.

    Returns the module, whose forward pass takes the inputs' tensors, and a training step of it.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    s = model.settings
    width, heads, count = s["width"], s["heads"], model.patches

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.norm = nn.LayerNorm(width, eps=1e-3)

        def forward(self, tokens, mask):
            shape = tokens.shape
            split = self.project(self.norm(tokens)).view(-1, shape[-2], 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(*split, attn_mask=mask).transpose(1, 2).reshape(shape)
            return functional.dropout(self.out(mixed), s["dropout"], self.training)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.time, self.across = Attention(), Attention() if s["mix_features"] else None
            self.widen, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
            self.norm = nn.LayerNorm(width, eps=1e-3)

        def forward(self, tokens, over_time, over_features):
            tokens = tokens + self.time(tokens, over_time)
            if self.across is not None:
                tokens = tokens + self.across(tokens.transpose(1, 2), over_features).transpose(1, 2)
            changed = self.narrow(functional.gelu(self.widen(self.norm(tokens))))
            return tokens + functional.dropout(changed, s["dropout"], self.training)

    class Twin(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(torch.zeros(count, width))
            self.embed = nn.Linear(2 * s["patch"], width)
            self.blocks = nn.ModuleList([Block() for _ in range(s["depth"])])
            self.norm, self.head = nn.LayerNorm(width, eps=1e-3), nn.Linear(count * width, s["horizon"])

        def forward(self, values, mask=None, feature_mask=None):
            cells = torch.ones_like(values, dtype=torch.bool)
            cells = cells if mask is None else cells & mask[:, :, None]
            cells = cells if feature_mask is None else cells & feature_mask[:, None, :]
            last = torch.where(cells.any(2), torch.arange(values.shape[1]), -1).amax(1, keepdim=True)
            index = torch.arange(s["context"]) + last - s["context"] + 1
            real = ((index >= 0) & (last >= 0))[..., None]
            index = index.clamp(0, values.shape[1] - 1)[..., None].expand(-1, -1, values.shape[2])
            cells = cells.gather(1, index) & real
            values = values.gather(1, index).where(cells, 0.0)
            number = cells.sum(1, keepdim=True).clamp(min=1)
            mean = values.sum(1, keepdim=True) / number
            centred = (values - mean).where(cells, 0.0)
            deviation = torch.sqrt(centred.square().sum(1, keepdim=True) / number + 1e-5)
            patches = (centred / deviation).transpose(1, 2).unfold(2, s["patch"], s["stride"])
            known = cells.transpose(1, 2).unfold(2, s["patch"], s["stride"])
            tokens = self.embed(torch.cat([patches, known.to(patches.dtype)], -1)) + self.position
            tokens = functional.dropout(tokens, s["dropout"], self.training)
            held = known.any(-1)
            over = [torch.where(part.reshape(-1, 1, 1, part.shape[2]), 0.0, -3e38) for part in (held, held.mT)]
            for block in self.blocks:
                tokens = block(tokens, *over)
            tokens = self.norm(tokens).where(held[..., None], 0.0)
            ahead = self.head(tokens.flatten(2)).transpose(1, 2) * deviation + mean
            features = cells.any(1, keepdim=True)
            return ahead.where(features, 0.0), features

    twin = Twin()
    optimizer = torch.optim.Adam(twin.parameters(), 1e-3, eps=1e-7)

    def step(x, y):
        optimizer.zero_grad()
        ahead, features = twin(**x)
        error = (ahead - y).where(features, 0.0).square()
        loss = error.sum() / (features.sum() * y.shape[1]).clamp(min=1)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return twin, step


def share_weights(model, twin):
    """Copy the weights of a Duet into its twin; the order of creation is the same, Keras' kernels lie transposed."""
    import torch

    mine = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    with torch.no_grad():
        for given, (name, wanted) in zip(mine, twin.named_parameters(), strict=True):
            linear = given.ndim == 2 and name != "position"
            wanted.copy_(torch.as_tensor(given.T if linear else given))


def empty_calls(model, x):
    """A function that calls as many layers as a forward pass of the model does; each returns what it was given: what
    Keras asks for being there."""
    from torch.nn.modules.module import register_module_forward_hook

    calls = []
    hook = register_module_forward_hook(lambda module, inputs, output: calls.append(module))
    model(x, training=True)
    hook.remove()
    empty = [keras.layers.Identity(name=f"empty_{i}") for i in range(len(calls))]
    tokens = keras.ops.zeros((len(x["values"]), x["values"].shape[2], model.patches, model.width))

    def run():
        for layer in empty:
            layer(tokens)

    return run


LARGE = {"context": 336, "horizon": 96, "patch": 16, "width": 128, "heads": 8, "depth": 3}
DUETS = {
    "width 32, 32 windows of 7": ({}, 32, 7),
    "width 32, one window of one": ({}, 1, 1),
    "width 128, 32 windows of 7": (LARGE, 32, 7),
}
"""Settings, windows and features of the duets that stand beside their twins. One window of one feature leaves next to
nothing to compute: what is left is what the calls themselves cost."""


def step_of(model, x, y):
    """The training step of `fit` on this batch. (`train_on_batch` looks at every layer before each step.)"""
    model.train_on_batch(x, y)
    return lambda: model.train_function([(x, y)])


def in_turns(runs, turns, warm=2):
    """{name: median milliseconds of processor time} of functions that take turns, so that a busy machine is busy for
    all."""
    spent = {name: [] for name in runs}
    for turn in range(turns + warm):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if turn >= warm:
                spent[name].append(time.process_time() - start)
    return {name: 1e3 * float(np.median(times)) for name, times in spent.items()}


def run_throughput(*, quick=False):
    """Processor milliseconds of a training step: duet, its torch twin and as many Keras layers that do nothing, in
    turns; and moola."""
    import torch

    rng, turns = np.random.default_rng(0), 5 if quick else 60
    results = {}
    for name, (settings, windows, features) in DUETS.items():
        keras.utils.set_random_seed(0)
        model = duet.build(**settings)
        lengths = rng.integers(model.context // 2, model.context + 1, (windows, 1))
        x = {
            "values": rng.normal(size=(windows, model.context, features)).astype("float32"),
            "mask": np.arange(model.context)[None, :] < lengths,
            "feature_mask": np.arange(features)[None, :]
            < rng.integers(features - features // 3, features + 1, (windows, 1)),
        }
        y = rng.normal(size=(windows, model.horizon, features)).astype("float32")
        twin, step = torch_twin(model)
        share_weights(model, twin)
        tensors = {key: torch.as_tensor(value) for key, value in x.items()}, torch.as_tensor(y)
        spent = in_turns(
            {
                "duet": step_of(model, *tensors),
                "torch twin": lambda: step(*tensors),  # noqa: B023
                "empty layers": empty_calls(model, tensors[0]),
            },
            turns,
        )
        results[f"duet, {name}"] = {f"{who} ms": round(figure, 2) for who, figure in spent.items()} | {
            "more ms": round(spent["duet"] - spent["torch twin"], 2),
            "ratio": round(spent["duet"] / spent["torch twin"], 2),
        }
    for name, model, made in (
        ("moola classifier", moola.build(), moola.synthetic(samples=32)),
        ("moola autoencoder", moola.build_pretraining(), moola.synthetic(samples=32, labels=False)),
    ):
        spent = in_turns({name: step_of(model, made["x"], made["y"])}, turns // 2)
        results[name] = {"ms": round(spent[name], 2)}
    return results
