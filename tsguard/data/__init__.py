"""Everything between a file and a batch: readers, splits, scalers, windows, padding, mixing, features, loaders.

Each module holds one step of that way and can be used alone. Nothing here imports keras or torch on import; the loaders
do so when they are asked for a loader of that framework.
"""
