"""The runs beside the models, on the data that each family makes itself: what a recipe falls back to where the public
sets are not there."""

import importlib
from pathlib import Path

import keras
import yaml

FOLDER = Path(__file__).resolve().parents[1] / "models"


def run_of(name):
    """The run of this file: (settings, compiled model, data), built as the file says."""
    settings = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))

    def make(part):
        module, function = part["use"].split(":")
        return getattr(importlib.import_module(module), function)(**part["args"])

    keras.utils.set_random_seed(settings["seed"])
    return settings, make(settings["model"]), make(settings["data"])


def train(name, *, epochs=None):
    """The last epoch's figures of the run, trained as its file says."""
    settings, model, data = run_of(name)
    wanted = {**settings["train"], **({} if epochs is None else {"epochs": epochs})}
    history = model.fit(data["x"], data["y"], validation_data=data["validation_data"], verbose=0, **wanted).history
    return {key: float(values[-1]) for key, values in history.items()}


def instead_of(folder, name):
    """`train`, having said why; for a recipe that misses its data."""
    print(f"# {folder} is not there (TSGUARD_DATA names another place): the embedded data by models/{name} instead")
    return train(name)
