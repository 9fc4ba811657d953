"""Recipes on real data for tft, cloud and ss4rec, and what a training step of each costs.

    python -m benchmarks.models_tft_cloud_ss4rec tft-nab
    python -m benchmarks.models_tft_cloud_ss4rec cloud-era5 loss=ccc num_frames=7

Each command prints its figures as `name value` lines and returns them, so that a test can hold them to a bar. The data
is read from `../shared/data` or from the folder that TSGUARD_DATA names.
"""

import ast
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import pandas as pd

from benchmarks.models_embedded import instead_of
from benchmarks.models_steps import in_turns, step_of
from models import cloud, ss4rec, tft
from models.ss4rec import ranking, scan

NAB_SERIES = (
    "ec2_cpu_utilization_825cc2",
    "ec2_network_in_257a54",
    "elb_request_count_8c0756",
    "rds_cpu_utilization_e47b3b",
)
NAB_COUNTS = (False, True, True, False)  # bytes and requests have heavy tails, percentages have not


def data_folder() -> Path:
    """Where the real sets lie; the folder need not exist."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("TSGUARD_DATA", beside))


def read_nab(folder: Path) -> pd.DataFrame:
    """The four server metrics of 10–24 April 2014 on one five-minute grid; short gaps hold the last value."""
    columns = {}
    for name in NAB_SERIES:
        table = pd.read_csv(folder / "nab" / "realAWSCloudwatch" / f"{name}.csv", parse_dates=["timestamp"])
        columns[name] = table.set_index("timestamp")["value"].resample("5min").mean()
    return pd.DataFrame(columns).ffill().dropna()


def tft_nab(*, epochs: int = 6, relative: bool = False, seed: int = 0) -> dict[str, float]:
    """One hour ahead from four hours of four metrics; trained on the first 70 % of the fortnight."""
    table = read_nab(data_folder())
    hours = table.index.hour + table.index.minute / 60
    split = int(0.7 * len(table))
    return _forecast(
        table.to_numpy(), hours, split, split, len(table), 48, 12, 1, epochs, seed, relative, log=NAB_COUNTS
    )


def tft_etth1(*, epochs: int = 2, relative: bool = True, seed: int = 0) -> dict[str, float]:
    """One day ahead from four days of all seven channels, split as in the ETT protocol."""
    table = pd.read_csv(data_folder() / "ett" / "ETTh1.csv", parse_dates=["date"])
    series = table.drop(columns="date").to_numpy()
    return _forecast(series, table["date"].dt.hour.to_numpy(), 8640, 11520, 14400, 96, 24, 2, epochs, seed, relative)


def _forecast(series, hours, train_end, test_start, test_end, past, horizon, stride, epochs, seed, relative, log=()):
    keras.utils.set_random_seed(seed)
    normalizer = tft.TargetNormalizer(log).fit(series[:train_end])
    scaled, known = normalizer.transform(series).astype("float32"), tft.hour_of_day(hours)
    train = tft.windows(scaled[:train_end], past=past, horizon=horizon, stride=stride, known=known[:train_end])
    reach = slice(test_start - past, test_end)
    test = tft.windows(scaled[reach], past=past, horizon=horizon, known=known[reach])
    truth = tft.windows(series[reach], past=past, horizon=horizon)
    targets = series.shape[1]
    model = tft.build(
        num_values=targets, num_targets=targets, horizon=horizon, num_known=2, num_static=0, relative=relative
    )
    started = time.perf_counter()
    model.fit(_tft_inputs(train), train["target"], epochs=epochs, batch_size=64, verbose=0)
    seconds = time.perf_counter() - started
    forecast = model.predict(_tft_inputs(test), batch_size=512, verbose=0)
    forecast = normalizer.inverse(forecast, quantiles=True)
    last = np.broadcast_to(truth["values"][:, -1:, :, None], forecast.shape)
    risk, naive = tft.q_risk(truth["target"], forecast), tft.q_risk(truth["target"], last)
    figures = {"train_s": seconds}
    for k, q in enumerate(tft.QUANTILES):
        figures[f"q{q:g}_risk"], figures[f"q{q:g}_risk_last_value"] = risk[:, k].mean(), naive[:, k].mean()
    figures["q_risk"], figures["q_risk_last_value"] = risk.mean(), naive.mean()
    figures["targets_better_than_last_value"] = float((risk.mean(axis=1) < naive.mean(axis=1)).sum())
    covered = (truth["target"] >= forecast[..., 0]) & (truth["target"] <= forecast[..., -1])
    figures["coverage_80"] = covered.mean()
    return figures


def _tft_inputs(cut):
    return {
        "values": cut["values"],
        "mask": np.ones(cut["values"].shape[:2], bool),
        "known": cut["known"],
    }


def cloud_era5_ridge(*, num_frames: int = 5, aux: bool = False, alpha: float = 100.0) -> dict[str, float]:
    """What a ridge on a 4 × 4 grid of each frame reaches on the same rows."""
    from sklearn.linear_model import Ridge

    data = era5(num_frames)
    features = cloud.simple_features(data["frames"])
    features = np.concatenate([features, data["aux"]], axis=1) if aux else features
    train, held = data["train"], ~data["train"]
    features = (features - features[train].mean(axis=0)) / features[train].std(axis=0)
    fitted = Ridge(alpha=alpha).fit(features[train], data["y"][train, 0])
    return cloud.decompose(data["y"][held], fitted.predict(features[held]))


def ss4rec_movielens(
    *, epochs: int = 6, length: int = 50, units: int = 64, state: int = 16, learning_rate: float = 2e-3, seed: int = 0
) -> dict[str, float]:
    """Leave the last film of every user out, rank it among all films not yet seen; 5-core, in time order."""
    keras.utils.set_random_seed(seed)
    table = pd.read_csv(data_folder() / "movielens_latest_small" / "ratings.csv")
    table = table[ranking.core_filter(table["userid"], table["movieid"])]
    histories, times, catalogue = ranking.sequences(table["userid"], table["movieid"], table["timestamp"])
    x, targets, seen = ranking.leave_one_out(histories, times, length)
    train = ranking.training_windows([h[:-2] for h in histories], [t[:-2] for t in times], length)
    validation = ranking.leave_one_out(histories, times, length, held_back=2)
    model = ss4rec.build(num_items=len(catalogue), units=units, state=state, learning_rate=learning_rate)
    started, best, kept = time.perf_counter(), -1.0, None
    for _ in range(epochs):
        model.fit(*train, batch_size=64, verbose=0)
        reached = model.rank(*validation)["ndcg@10"]
        if reached > best:
            best, kept = reached, model.get_weights()
    model.set_weights(kept)
    popularity = np.bincount(np.concatenate(seen), minlength=len(catalogue) + 1)
    popular = np.tile(popularity, (len(targets), 1))
    naive = ranking.ranking_metrics(ranking.target_ranks(popular, targets, seen))
    figures = {"users": len(targets), "items": len(catalogue), "train_s": time.perf_counter() - started}
    figures |= {"validation_ndcg@10": best, **model.rank(x, targets, seen)}
    return figures | {f"{name}_popularity": value for name, value in naive.items()}


def era5(num_frames: int, ahead: int = 6, coarse: int = 1) -> dict[str, np.ndarray]:
    """Runs of 2 m temperature fields and the spatial mean `ahead` hours later, standardised on the first 70 %.

    With `coarse` the frames are means over so many cells in either direction; what is forecast stays the same.
    """
    with np.load(data_folder() / "era5_uk_t2m" / "era5_uk_t2m_2019_03.npz") as saved:
        fields, dates = saved["t2m"].astype(np.float64), saved["date"]
    cut, mean = int(0.7 * len(fields)), fields.mean(axis=(1, 2))
    height, width = (extent // coarse for extent in fields.shape[1:])
    fields = fields[:, : height * coarse, : width * coarse]
    fields = fields.reshape(len(fields), height, coarse, width, coarse).mean(axis=(2, 4))
    climate, spread = fields[:cut].mean(axis=0), (fields[:cut] - fields[:cut].mean(axis=0)).std()
    frames, target = cloud.sequences(((fields - climate) / spread)[..., None], num_frames=num_frames, ahead=ahead)
    y = (mean - mean[:cut].mean()) / mean[:cut].std()
    hours = np.array([int(date[9:11]) for date in dates])
    return {
        "frames": frames.astype("float32"),
        "y": y[target].astype("float32")[:, None],
        "persistence": y[target - ahead],
        "aux": tft.hour_of_day(hours[target]),
        "train": target < cut,
    }


def cloud_era5(
    *, num_frames: int = 5, aux: bool = False, epochs: int = 15, pretrained: bool = False, coarse: int = 1, **options
) -> dict[str, float]:
    """The mean temperature of the field six hours ahead from its last hours; the median of three seeds.

    Five hundred overlapping samples are few: the rate is low and dropout and weight decay are high.
    `options` go to `build`.
    """
    options = {"dropout": 0.4, "learning_rate": 1e-3, "weight_decay": 0.1, **options}
    data = era5(num_frames, coarse=coarse)
    train, held = data["train"], ~data["train"]
    inputs = {"frames": data["frames"], "mask": np.ones(data["frames"].shape[:2], bool)}
    inputs |= {"aux": data["aux"]} if aux else {}
    pick = lambda rows: {key: value[rows] for key, value in inputs.items()}  # noqa: E731
    runs, started = [], time.perf_counter()
    for seed in range(3):
        keras.utils.set_random_seed(seed)
        shape, num_aux = data["frames"].shape[2:], 2 * aux
        model = cloud.build(frame_shape=shape, num_frames=num_frames, num_aux=num_aux, **options)
        if pretrained:
            cloud.pretrain(model, data["frames"][train][:, -1], epochs=30)
        model.fit(pick(train), data["y"][train], epochs=epochs, batch_size=32, verbose=0)
        runs.append(cloud.decompose(data["y"][held], model.predict(pick(held), verbose=0)))
    figures = {name: float(np.median([run[name] for run in runs])) for name in runs[0]}
    figures |= {"r2_worst_seed": min(run["r2"] for run in runs), "r2_best_seed": max(run["r2"] for run in runs)}
    figures["r2_persistence"] = cloud.decompose(data["y"][held], data["persistence"][held])["r2"]
    return figures | {"train_s": time.perf_counter() - started}


ERA5_OPTIONS = {
    "plain": {},
    "1 frame": {"num_frames": 1},
    "3 frames": {"num_frames": 3},
    "7 frames": {"num_frames": 7},
    "hour as auxiliary input": {"aux": True},
    "pre-trained on frames": {"pretrained": True},
    "output_init 0.01": {"output_init": 0.01},
    "output_init 0.5": {"output_init": 0.5},
    "loss huber": {"loss": "huber"},
    "loss variance": {"loss": "variance"},
    "loss ccc": {"loss": "ccc"},
    "overweight 1": {"overweight": 1.0},
}
"""What the field changed when predictions were flat, one at a time."""


def cloud_era5_options(*, coarse: int = 2) -> dict[str, float]:
    """Each option of cloud by itself beside the plain model, on the same rows and seeds; on fields of a quarter of the
    cells, so that all of them end within minutes."""
    shown = ("r2", "std_ratio", "correlation", "r2_worst_seed", "r2_best_seed")
    figures = {}
    for name, options in ERA5_OPTIONS.items():
        found = cloud_era5(coarse=coarse, **options)
        figures |= {f"{name}/{key}": found[key] for key in shown}
        print(name, *(f"{key} {found[key]:.3f}" for key in shown), flush=True)
    return figures


def step_costs(*, turns: int = 20, batch_size: int = 32) -> dict[str, float]:
    """Processor milliseconds of a training step of each family's default model on its synthetic data, in turns."""
    runs = {}
    for family in (tft, cloud, ss4rec):
        data, model = family.synthetic(), family.build()
        x, y = {key: value[:batch_size] for key, value in data["x"].items()}, data["y"][:batch_size]
        runs[f"{family.__name__.split('.')[1]}_ms"] = step_of(model, x, y)
    return in_turns(runs, turns)


def scan_costs(*, repeats: int = 5) -> dict[str, float]:
    """Milliseconds forward of the linear recurrence as a loop and as a tree: S5's state, a long one, and Mamba's."""
    figures, rng = {}, np.random.default_rng(0)
    for name, shape in (("s5_50", (32, 50, 32)), ("s5_1000", (32, 1000, 32)), ("mamba_50", (32, 50, 128, 16))):
        a, b = (keras.ops.convert_to_tensor(part.astype("float32")) for part in rng.uniform(0, 1, (2, *shape)))
        for method in ("loop", "tree", "auto"):
            figures[f"{name}_{method}_ms"] = 1e3 * _best(lambda: scan.linear_scan((a,), (b,), method), repeats)  # noqa: B023
    return figures


def _best(action, repeats: int) -> float:
    action()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return min(times)


COMMANDS = {
    "tft-nab": tft_nab,
    "tft-etth1": tft_etth1,
    "cloud-era5": cloud_era5,
    "cloud-era5-ridge": cloud_era5_ridge,
    "cloud-era5-options": cloud_era5_options,
    "ss4rec-movielens": ss4rec_movielens,
    "steps": step_costs,
    "scan": scan_costs,
}


def main(arguments: list[str]) -> int:
    options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    names = [argument for argument in arguments if "=" not in argument]
    unknown = [name for name in names if name not in COMMANDS]
    if unknown or not names:
        print(f"usage: python -m benchmarks.models_tft_cloud_ss4rec COMMAND… [option=value…]; unknown: {unknown}")
        print(f"commands: {', '.join(COMMANDS)}; an option is an argument of the command's function")
        return 2
    for name in names:
        started = time.perf_counter()
        family = name.split("-")[0]
        if family in ("tft", "cloud", "ss4rec") and not data_folder().is_dir():
            figures = instead_of(data_folder(), f"{family}.yaml")
        else:
            figures = COMMANDS[name](**{key: _literal(value) for key, value in options.items()})
        print(f"# {' '.join([name, *arguments[len(names) :]])} ({time.perf_counter() - started:.0f} s)")
        for key, value in figures.items():
            print(f"{key} {value:.4g}")
    return 0


def _literal(text: str):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
