"""Everything about the guard runs on torch."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
