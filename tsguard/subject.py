"""A Subject: the recipe for model, data, loss and optimizer, which can be rebuilt in another process.

A recipe is an import path with arguments (`models.duet:build`), or a live compiled model taken apart into Keras' own
configuration and a file of weights. What cannot be rebuilt says why; it can still be watched and judged in place.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tsguard.backend import require_torch, seed_everything
from tsguard.dataset import Data
from tsguard.errors import ConfigError, SubjectError, explain
from tsguard.padding import Padding


@dataclass(frozen=True, slots=True)
class Recipe:
    """An import path with arguments: `Recipe("models.duet:build", {"width": 64})`."""

    use: str
    args: Mapping[str, Any] = field(default_factory=dict)
    place: str = "use"
    """Where the path was written, for messages: "model.use"."""

    def load(self) -> Callable[..., Any]:
        """The function itself; a ConfigError that says which half of the path is wrong."""
        module_name, separator, name = self.use.partition(":")
        if not separator or not module_name or not name:
            raise ConfigError(
                explain(
                    self.place,
                    received=repr(self.use),
                    expected="an import path 'package.module:function'",
                    todo="Write the module, a colon, and the name of the function in it.",
                )
            )
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as missing:
            if missing.name is None or not (module_name == missing.name or module_name.startswith(missing.name + ".")):
                raise
            raise ConfigError(
                explain(
                    self.place,
                    received=repr(self.use),
                    expected=f"a module that can be imported; {missing.name!r} is not installed or here",
                    todo="Check the spelling, and run the command from the folder that holds the module.",
                )
            ) from None
        found: Any = module
        for part in name.split("."):
            if not hasattr(found, part):
                near = ", ".join(sorted(n for n in dir(found) if not n.startswith("_") and callable(getattr(found, n))))
                raise ConfigError(
                    explain(
                        self.place,
                        received=repr(self.use),
                        expected=f"a function of {module_name}: {near or 'it has none'}",
                        todo="Check the name after the colon.",
                    )
                )
            found = getattr(found, part)
        if not callable(found):
            raise ConfigError(
                explain(
                    self.place,
                    received=f"{self.use!r}, a {type(found).__name__}",
                    expected="a function",
                    todo="Point at the function that builds it.",
                )
            )
        return found  # type: ignore[no-any-return]

    def make(self) -> Any:
        """Call the function; arguments that it does not take are a ConfigError that names those it does."""
        function = self.load()
        try:
            inspect.signature(function).bind(**self.args)
        except TypeError as mismatch:
            takes = ", ".join(inspect.signature(function).parameters)
            raise ConfigError(
                explain(
                    self.place.replace(".use", ".args"),
                    received=f"{dict(self.args)} for {self.use} ({mismatch})",
                    expected=f"arguments among: {takes or 'none'}",
                    todo="Remove or rename the argument.",
                )
            ) from None
        return function(**self.args)


@dataclass(frozen=True)
class Subject:
    """The recipe of a run. `live` is the user's own instance, where there is one."""

    make_model: Callable[[], Any]
    data: Data | None = None
    padding: Padding | None = None
    seed: int | None = None
    name: str = "model"
    live: Any = None
    recipe: Recipe | None = None
    """The import path of the model, where it came by one: what a reproduction imports."""
    data_recipe: Recipe | None = None

    @classmethod
    def from_recipes(
        cls,
        model: Recipe,
        data: Recipe | None = None,
        *,
        padding: Padding | None = None,
        seed: int = 0,
        name: str = "model",
    ) -> Subject:
        """A subject from import paths, as `run.yaml` writes them. The data is made at once, from the seed."""
        require_torch()
        seed_everything(seed)
        made = None if data is None else Data.of(data.make())
        return cls(
            make_model=model.make, data=made, padding=padding, seed=seed, name=name, recipe=model, data_recipe=data
        )

    @classmethod
    def from_model(
        cls, model: Any, data: Data | None = None, *, padding: Padding | None = None, name: str = ""
    ) -> Subject:
        """A subject around a live model; it is rebuilt from Keras' configuration where the model has one."""
        require_compiled(model)
        return cls(
            make_model=lambda: clone(model), data=data, padding=padding, name=name or str(model.name), live=model
        )

    @classmethod
    def of(cls, model_or_subject: Any, **changes: Any) -> Subject:
        """Accept a Subject, a compiled model, or a function that builds one; replace what is given."""
        given = {key: value for key, value in changes.items() if value is not None}
        if isinstance(model_or_subject, Subject):
            return replace(model_or_subject, **given)
        if hasattr(model_or_subject, "compute_loss") and hasattr(model_or_subject, "fit"):
            return replace(cls.from_model(model_or_subject), **given)
        if callable(model_or_subject):
            return replace(
                cls(make_model=model_or_subject, name=getattr(model_or_subject, "__name__", "model")), **given
            )
        raise SubjectError(
            explain(
                "model",
                received=f"a {type(model_or_subject).__name__}",
                expected="a compiled keras.Model, a tsguard.Subject, or a function that returns a compiled model",
                todo="Pass the model itself.",
            )
        )

    def model(self) -> Any:
        """The user's own instance, or a fresh model built from the seed."""
        return self.live if self.live is not None else self.rebuild()

    def rebuild(self) -> Any:
        """A fresh compiled model that shares nothing with any other."""
        require_torch()
        if self.seed is not None:
            seed_everything(self.seed)
        model = self.make_model()
        require_compiled(model)
        return model


def require_compiled(model: Any) -> None:
    """A SubjectError unless this is a Keras model that `compile` has been called on."""
    if not hasattr(model, "compute_loss"):
        raise SubjectError(
            explain(
                "model",
                received=f"a {type(model).__module__}.{type(model).__name__}",
                expected="a keras.Model (a torch.nn.Module can be wrapped with keras.layers.TorchModuleWrapper)",
                todo="Build a Keras model and compile it.",
            )
        )
    if not getattr(model, "compiled", False):
        raise SubjectError(
            explain(
                f"model {model.name!r}",
                received="a model that is not compiled",
                expected="loss and optimizer to be known",
                todo="Call model.compile(optimizer=…, loss=…) before handing it over.",
            )
        )


def clone(model: Any) -> Any:
    """An independent compiled copy with the same weights and optimizer state, through Keras' own configuration."""
    import keras

    config = keras.saving.serialize_keras_object(model)
    copy = keras.saving.deserialize_keras_object(config, safe_mode=False)
    if not copy.built and model.built:
        shapes = getattr(model, "_build_shapes_dict", None) or {}
        if not shapes:
            raise SubjectError(
                explain(
                    f"model {model.name!r}",
                    received="a subclassed model whose shapes Keras has not recorded",
                    expected="a model that can be rebuilt from its configuration",
                    todo="Call it once on a batch, or give a function that builds it.",
                )
            )
        copy.build(**shapes)
    copy.set_weights(model.get_weights())
    if not copy.compiled and model.get_compile_config():
        copy.compile_from_config(model.get_compile_config())
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and optimizer.built:
        copy.optimizer.build(copy.trainable_variables)
        copy.optimizer.set_weights([variable.numpy() for variable in optimizer.variables])
    return copy


def why_not_rebuildable(model: Any) -> str | None:
    """None where another process could rebuild this model from its configuration; otherwise the reason."""
    import keras

    for layer in model._flatten_layers(include_self=True, recursive=True):
        kind = type(layer)
        if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
            place = f"class {kind.__qualname__} of layer {layer.path!r} lives in {kind.__module__}"
            return f"{place}, where no other process can import it"
    try:
        keras.saving.serialize_keras_object(model)
    except Exception as reason:  # any layer's get_config may fail in its own way; the reason is what is wanted
        return f"{type(reason).__name__}: {reason}"
    return None
