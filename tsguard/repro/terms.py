"""The terms of a model's own loss, as its `loss_terms` names them, and the same model with only some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tsguard.backend import attributes
from tsguard.repro.code.arrays import plain


@contextmanager
def only(model: Any, kept: Sequence[str] | None) -> Iterator[None]:
    """The model with only these terms; with all of them for None."""
    own = getattr(model, "loss_terms", None)
    if kept is None or not callable(own):
        yield
        return

    def some(*given: Any, **named: Any) -> Any:
        terms = own(*given, **named)
        return {name: terms[name] for name in kept}

    with attributes([(model, "loss_terms", some)]):
        yield


def heard(model: Any, step: Callable[[], Any]) -> tuple[str, ...]:
    """The names of the terms that a step of the model asks for; none where it has no `loss_terms` or never asks."""
    own, names = getattr(model, "loss_terms", None), dict[str, None]()
    if not callable(own):
        return ()

    def listened(*given: Any, **named: Any) -> Any:
        terms = own(*given, **named)
        names.update(dict.fromkeys(terms))
        return terms

    with attributes([(model, "loss_terms", listened)]):
        step()
    return tuple(names)


def code(kept: Sequence[str] | None) -> list[str]:
    """Lines of a script that leave only these terms."""
    if kept is None:
        return []
    some = ", ".join(f"{plain(name)}: all_terms(*given, **named)[{plain(name)}]" for name in kept)
    return ["all_terms = model.loss_terms", f"model.loss_terms = lambda *given, **named: {{{some}}}"]
