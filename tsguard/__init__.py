"""tsguard: tested training for Keras 3 models on the PyTorch backend."""
