"""A script with one line of tsguard in it, to be ended in every way a process can end.

python -m tests.guard.dying FOLDER HOW
"""

import os
import signal
import sys

os.environ["KERAS_BACKEND"] = "torch"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import keras
import numpy as np

import tsguard

LAST = 12
"""The step in which it ends."""


class End(keras.callbacks.Callback):
    def __init__(self, how):
        super().__init__()
        self.how, self.step = how, 0

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.step != LAST:
            return
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "term":
            os.kill(os.getpid(), signal.SIGTERM)
        if self.how == "raise":
            raise RuntimeError("the callback broke")
        if self.how == "memory":
            raise MemoryError("no room for 80 GB")
        if self.how == "exit":
            sys.exit(3)


def main(folder, how):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 6)).astype("float32"), rng.normal(size=(400, 1)).astype("float32")
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(x, y, batch_size=4, epochs=3, verbose=0, callbacks=[tsguard.Guard(out=folder, sync_every=2), End(how)])


if __name__ == "__main__":
    main(*sys.argv[1:])
