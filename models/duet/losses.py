"""The objectives of duet, each a function of arrays alone: one can be tested, switched off or put under suspicion.

Every loss is defined for an empty selection (no patch selected, no eligible sample, one sample in the batch): it is 0,
and so is its gradient. None of them hides a NaN: what is selected and not finite stays visible.
"""

from __future__ import annotations

from keras import ops

from models.common import lowest, masked_mean, weighted_error, widened


def masked_patch_loss(patches, predicted, selected, cells, sample_weight=None, kind="huber"):
    """Error of the hidden patches, over the real cells in them.

    patches, predicted, cells: (batch, features, patches, steps); selected: (batch, features, patches). A window of so
    few patches that none was selected has loss 0: the mean over an empty selection is NaN otherwise.
    """
    hidden = ops.logical_and(ops.cast(selected, "bool")[..., None], cells)
    return weighted_error(patches, predicted, hidden, sample_weight, kind)


def order_loss(logits, eligible, sample_weight=None):
    """Binary cross entropy of "the later part was put before the earlier one".

    logits: (batch, 2), of the window as it is and of the window swapped; eligible: (batch,), two real patches or more.
    """
    logits = widened(logits)
    each = 0.5 * (ops.softplus(logits[:, 0]) + ops.softplus(-logits[:, 1]))
    if sample_weight is not None:
        each = each * ops.cast(sample_weight, each.dtype)
    return masked_mean(each, eligible)


def contrastive_loss(views, valid, temperature=0.2, domain=None, sample_weight=None):
    """NT-Xent as in SimCLR: of all views in the batch, each has to find the other view of its own sample.

    views: (batch, 2, width), of any length; valid: (batch,), samples with anything in them; one without is neither
    asked nor heard. With `domain` (batch,) it is the cross-domain objective: only samples of *other* sets count as
    negatives, because overlapping windows of one set are none. With no negative at all (one sample; one set) it is 0.
    """
    views = widened(views)
    batch = ops.shape(views)[0]
    both = ops.concatenate([views[:, 0], views[:, 1]], axis=0)
    both = both / ops.sqrt(ops.sum(ops.square(both), axis=-1, keepdims=True) + 1e-12)
    similar = ops.matmul(both, ops.transpose(both)) / temperature
    sample = ops.tile(ops.arange(batch), (2,))
    real = ops.tile(ops.cast(valid, "bool"), (2,))
    same = sample[:, None] == sample[None, :]
    itself = ops.arange(2 * batch)[:, None] == ops.arange(2 * batch)[None, :]
    positive = ops.logical_and(same, ops.logical_not(itself))
    heard = ops.logical_and(real[None, :], ops.logical_not(itself))
    if domain is not None:
        domain = ops.tile(ops.reshape(domain, (-1,)), (2,))
        heard = ops.logical_and(heard, ops.logical_or(positive, domain[:, None] != domain[None, :]))
    asked = ops.logsumexp(ops.where(ops.logical_or(heard, positive), similar, lowest(similar.dtype)), axis=-1)
    each = asked - ops.sum(ops.where(positive, similar, 0.0), axis=-1)
    if sample_weight is not None:
        each = each * ops.tile(ops.reshape(ops.cast(sample_weight, each.dtype), (-1,)), (2,))
    return masked_mean(each, real)


def next_patch_loss(target, predicted, cells, sample_weight=None, kind="huber"):
    """Error of the patch that was withheld at the end: (batch, features, steps)."""
    return weighted_error(target, predicted, cells, sample_weight, kind)


def autoencoder_loss(patches, predicted, cells, sample_weight=None, kind="huber"):
    """Error of every real cell, reconstructed from one short code per feature."""
    return weighted_error(patches, predicted, cells, sample_weight, kind)


def forecast_loss(y, predicted, features, sample_weight=None, kind="mse"):
    """Error of the forecast (batch, horizon, features) over the features that are real: (batch, features)."""
    return weighted_error(y, predicted, features[:, None, :], sample_weight, kind)
