"""One worked diagnosis per incident: what was believed, what tsguard says first, and the two curves that show it.

    python benchmarks/incidents.py                 # all five; writes docs/incidents/<incident>.svg and prints the words
    python benchmarks/incidents.py moola

Each mechanism goes through a whole session (preflight, training, experiments). Where the first cause was proven by an
experiment, its curves are drawn; otherwise the sick run's loss is held against that of the mended variant.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SHOWN = {
    "cloud": "variance_penalty",
    "duet": "empty_masked_patches",
    "moola": "majority_share",
    "ss4rec": "zero_padded_timestamps",
    "tft": "mask_value_overflows_half",
}
FOLDER = Path(__file__).resolve().parents[1] / "docs" / "incidents"
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 560, 220, 56, 36, 34


def losses_of(program: Any) -> list[float]:
    """The loss of every step of a plain run."""
    import keras

    from fixtures.program import train

    class Keep(keras.callbacks.Callback):
        seen: list[float]

        def on_train_begin(self, logs: Any = None) -> None:
            self.seen, self.total = [], 0.0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.total = 0.0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            mean = float((logs or {}).get("loss", math.nan))
            self.seen.append(mean * (batch + 1) - self.total)
            self.total = mean * (batch + 1)

    keep = Keep()
    train(program, callbacks=(keep,))
    return keep.seen


def curves_of(incident: str, name: str) -> tuple[Any, str, list[tuple[str, list[float]]]]:
    """The first cause, and two named curves."""
    import keras

    from benchmarks.diagnosis import session
    from fixtures import incidents
    from tsguard.findings import causes

    entry = incidents.find(incident, name)
    keras.utils.set_random_seed(0)
    before, after, _ = session(entry.sick(), budget_s=60)
    first = causes(after or before)[0]
    proof = first.proof
    if proof is not None and proof.before is not None and proof.after is not None:
        sure = "" if proof.certainty is None else f", {proof.certainty:.0%} of {proof.repeats} repetitions agree"
        how = f"experiment: {proof.experiment} (effect {proof.effect:.0%}{sure})"
        return first, how, [("as configured", list(proof.before.y)), (proof.experiment, list(proof.after.y))]
    keras.utils.set_random_seed(0)
    pair = [("as it was", losses_of(entry.sick())), ("mended", losses_of(entry.healthy()))]
    return first, "seen in model and data alone; below, both variants trained", pair


def drawn(title: str, curves: list[tuple[str, list[float]]]) -> str:
    """A small picture of two curves; a curve that stops being finite ends in a cross."""
    finite = [v for _, ys in curves for v in ys if math.isfinite(v) and v > 0]
    logarithmic = bool(finite) and max(finite) > 30 * min(finite)
    scale = math.log10 if logarithmic else float
    low, high = (scale(min(finite)), scale(max(finite))) if finite else (0.0, 1.0)
    high = high if high > low else low + 1.0
    last = max(len(ys) for _, ys in curves)

    def place(step: int, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - 12) * step / max(1, last - 1)
        share = (scale(max(value, min(finite))) - low) / (high - low)
        return round(x, 1), round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" '
        f'font-family="sans-serif" font-size="12"><title>{title}</title>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="16" font-weight="bold" fill="#222222">{title}</text>',
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - 12}" fill="none" stroke="#888888"/>',
    ]
    for value, y in ((high, TOP + 4), (low, HEIGHT - BOTTOM)):
        number = 10**value if logarithmic else value
        parts.append(f'<text x="{LEFT - 6}" y="{y}" text-anchor="end" fill="#555555">{number:.3g}</text>')
    words = f"step (of {last}); loss" + (", logarithmic" if logarithmic else "")
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 8}" fill="#555555">{words}</text>')
    styles = (("#b3261e", ""), ("#1a5fb4", "6 3"))
    for number, ((name, ys), (colour, dashes)) in enumerate(zip(curves, styles, strict=True)):
        every = max(1, len(ys) // 300)
        good = next((i for i, v in enumerate(ys) if not math.isfinite(v)), len(ys))
        points = [place(i, ys[i]) for i in range(0, good, every)]
        dash = f' stroke-dasharray="{dashes}"' if dashes else ""
        if len(points) > 1:
            path = " ".join(f"{x},{y}" for x, y in points)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>')
        if good < len(ys):
            x, y = points[-1] if points else (LEFT + 6, TOP + 20)
            parts.append(f'<text x="{x + 6}" y="{y + 4}" fill="{colour}">× {ys[good]:g} at step {good}</text>')
        y = 16 + 14 * number
        parts.append(f'<path d="M{WIDTH - 250} {y - 4}h22" stroke="{colour}" stroke-width="2"{dash}/>')
        parts.append(f'<text x="{WIDTH - 222}" y="{y}" fill="#222222">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("only", nargs="*", choices=[*SHOWN, []])
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    FOLDER.mkdir(exist_ok=True)
    for incident in given.only or SHOWN:
        first, how, curves = curves_of(incident, SHOWN[incident])
        (FOLDER / f"{incident}.svg").write_text(drawn(f"{incident}: {first.code}", curves), encoding="utf-8")
        print(f"{incident}/{SHOWN[incident]}: {first.code} ({first.status}), {how}\n  {first.message}\n", flush=True)


if __name__ == "__main__":
    main()
