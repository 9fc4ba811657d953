"""The five model families, in pure Keras 3: every one builds, saves and runs without tsguard."""
