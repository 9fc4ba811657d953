"""Lines of a script that note every call of a function of torch: what an own call does shows in no layer."""

from __future__ import annotations


def listening(seen: str, what: str) -> list[str]:
    """Lines that note, of each function of torch while a step is made, what it was given and what it gave."""
    return [
        "from torch.overrides import TorchFunctionMode",
        "class Watch(TorchFunctionMode):",
        "    def __torch_function__(self, function, types, given=(), named=None):",
        "        made = function(*given, **(named or {}))",
        f"        if {what}:",
        f"            seen.append({seen})",
        "        return made",
        "model(x)",  # what is not built yet is called on nothing first
        "seen = []",
        "with Watch():",
    ]
