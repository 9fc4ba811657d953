"""Where a dtype matters: what must leave half precision, and what Keras narrows to float32 behind one's back.

Outside TensorFlow Keras promotes to 32 bits: `result_type("float64", "float64")` is float32 and `("int64", "int64")` is
int32. `ops.matmul`, and so every Dense, narrows a float64 model without a word, and `ops.where` narrows times. What has
to be exact here uses products, sums and joins alone, which keep their type.
"""

import keras


def at_least_float32(dtype) -> str:
    """The type in which a loss or a scan of this dtype is computed."""
    return "float64" if keras.backend.standardize_dtype(dtype) == "float64" else "float32"


def precise() -> str:
    """The type in which a model of the policy in force keeps what half cannot hold."""
    return at_least_float32(keras.config.dtype_policy().compute_dtype)
