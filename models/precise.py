"""Where a dtype matters: what half precision must leave, and what Keras narrows to float32 behind one's back.

`keras.backend.result_type("float64", "float32")` is float32, and `LayerNormalization` computes in that type, so a
float64 model built from it is only right to 1e-7 and its gradients cannot be checked by finite differences.
"""

import keras


def at_least_float32(dtype) -> str:
    """The type in which a loss, a scan or a norm of this dtype is computed."""
    return "float64" if keras.backend.standardize_dtype(dtype) == "float64" else "float32"


def lowest(dtype) -> float:
    """The most negative finite number of a dtype: what a forbidden attention score becomes.

    The usual −1e9 is −inf in float16, and a row of −inf is NaN after softmax; this value is finite in every float type.
    """
    return {"float16": -65504.0, "float64": -1.79e308}.get(keras.backend.standardize_dtype(dtype), -3.38e38)
