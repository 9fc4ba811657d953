"""Cases from planted faults, and scripts run where nothing of this process is known."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
