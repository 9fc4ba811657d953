"""The names of the parts of a loss: what an output, a layer or a weight adds to it."""

from __future__ import annotations

from typing import Any

from tsguard.guard.replay import Listener
from tsguard.guard.tensors import is_bad


def loss_term(heard: Listener, model: Any) -> str | None:
    """Which part of the loss is bad: a named one, else the compiled loss of the only output."""
    for name, value in heard.terms.items():
        if is_bad(value):
            return extra_loss_name(model, name)
    compile_loss = getattr(model, "_compile_loss", None)
    losses = getattr(compile_loss, "_flat_losses", None) or []
    if heard.loss is not None and is_bad(heard.loss) and len(losses) == 1 and not _own_loss(model):
        return str(losses[0].name)
    return None


def _own_loss(model: Any) -> bool:
    from keras.src.trainers.trainer import Trainer

    return type(model).compute_loss is not Trainer.compute_loss


def extra_loss_name(model: Any, name: str) -> str:
    """`add_loss/3` becomes the path of the layer (or the regularised weight) that added the fourth extra loss."""
    if not name.startswith("add_loss/"):
        return name
    wanted = int(name.split("/")[1])
    names: list[str] = []
    try:
        for layer in [model, *model._flatten_layers(include_self=False)]:
            names += [str(layer.path or layer.name)] * len(layer._get_own_losses())
        for variable in model.trainable_weights:
            if variable.regularizer is not None:
                names.append(str(variable.path))
    except Exception:  # a name is a courtesy: the number will do
        return name
    return names[wanted] if wanted < len(names) else name
