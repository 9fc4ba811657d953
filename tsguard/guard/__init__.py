"""The guard: watch a `fit` for free, go back in time when something breaks, name the first broken operation.

seam      the one interception: around `train_function`, and around the optimizer's `apply`
recorder  the last clean state, and the batches since
watch     numbers of every step, kept on the device until a rare read
trips     rules over those numbers: what counts as broken
replay    rewind to the clean state and run the recorded steps again, bit for bit
trace     one step under full instrumentation: every operation, its layer, its line
origin    from the trip back along the data to the operation that made the first bad value
recovery  what happens then: stop, raise, skip, roll back
callback  all of it as one Keras callback
"""
