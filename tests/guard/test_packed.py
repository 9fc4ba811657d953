"""Copies and norms of many small tensors in one call say what a call for each would say."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch

from tsguard.guard.norms import StepNorm, all_finite, each_norm
from tsguard.guard.packed import PACKED_MAX, by_dtype
from tsguard.guard.state import StateBuffer


def _some(seed: int) -> list[torch.Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    sizes = [(3, 4), (1,), (), (2, 5, 2), (7,)]
    return [torch.randn(size, generator=drawn) * 10.0 ** (3 * k - 6) for k, size in enumerate(sizes)]


@pytest.mark.parametrize("seed", range(5))
def test_norms_of_small_tensors_are_those_of_each(seed: int) -> None:
    gradients = [value.t() if value.dim() == 2 else value for value in _some(seed)]
    alone = torch.stack([torch.linalg.vector_norm(value.double()) for value in gradients])
    torch.testing.assert_close(each_norm(gradients).double(), alone, rtol=2e-6, atol=0)


def test_norms_step_after_step_follow_the_sizes_of_the_step() -> None:
    norm = StepNorm()
    for values in (_some(0), _some(1), _some(2)[::-1], _some(3)[1:], [value.double() for value in _some(4)]):
        assert torch.equal(norm([*values, None]), each_norm(values))
    wide = [_some(5)[0], *(value.double() for value in _some(5)[1:])]
    assert norm(wide).dtype is torch.float32
    assert torch.equal(norm(wide), each_norm(wide))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_a_norm_that_is_not_finite_is_that_of_its_tensor_alone(bad: float) -> None:
    gradients = _some(0)
    gradients[3][0, 1, 0] = bad
    assert torch.isfinite(each_norm(gradients)).tolist() == [True, True, True, False, True]


def test_a_pack_holds_what_it_took_whatever_is_written_later() -> None:
    sources = [*_some(1), torch.arange(4), torch.zeros(PACKED_MAX + 1), torch.zeros(4, 3).t(), torch.zeros(0)]
    packs, single = by_dtype(sources)
    kept = [value.clone() for pack in packs for value in pack.sources]
    for pack in packs:
        pack.fill()
        for source in pack.sources:
            source.add_(1)
    assert [len(pack.parts) for pack in packs] == [5, 1]
    assert len(single) == 3
    assert all(torch.equal(a, b) for a, b in zip(kept, (p for pack in packs for p in pack.parts), strict=True))
    assert all(
        part.shape == source.shape for pack in packs for part, source in zip(pack.parts, pack.sources, strict=True)
    )


def test_a_sum_that_overflows_is_no_value_that_is_not_finite() -> None:
    sources = [torch.full((4,), 2e38), torch.ones(3)]
    (pack,), _ = by_dtype(sources)
    assert all_finite([pack.fill().whole])
    sources[1][2] = torch.nan
    assert not all_finite([pack.fill().whole])


def _trained() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def test_an_optimizer_slot_that_is_not_finite_is_no_clean_state() -> None:
    model = _trained()
    state = StateBuffer(model)
    state.capture()
    model.optimizer.build(model.trainable_variables)
    state.extend()
    assert state.source_finite()
    model.optimizer.variables[-1].value.fill_(torch.inf)
    assert not state.source_finite()


def test_a_state_comes_back_bit_for_bit_after_the_optimizer_was_built() -> None:
    model = _trained()
    x, y = np.ones((8, 4), "float32"), np.ones((8, 1), "float32")
    state = StateBuffer(model)
    state.capture()
    model.optimizer.build(model.trainable_variables)
    state.extend()
    model.train_on_batch(x, y)
    state.capture()
    kept = [variable.value.detach().clone() for variable in state.variables]
    model.train_on_batch(x, y)
    assert not all(torch.equal(v.value, k) for v, k in zip(state.variables, kept, strict=True))
    state.restore()
    assert all(torch.equal(v.value, k) for v, k in zip(state.variables, kept, strict=True))
