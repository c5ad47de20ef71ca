# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.accounting import stored_bits_per_weight
from hbvla_ros.packed.bits import unpack_signs
from hbvla_ros.quantization.hessian import relative_error
from hbvla_ros.quantization.methods.rtn import RtnOptions
from hbvla_ros.quantization.methods.signplane_options import SignPlaneOptions
from hbvla_ros.quantization.registry import METHODS, find_method
from hbvla_ros.quantization.synthetic import make_layer, output_error

RTN, SIGNPLANE = METHODS['rtn'].quantize, METHODS['signplane'].quantize
FAST = SignPlaneOptions(rounds=2, cycles=1)


def random_weight(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def random_hessian(columns: int, tokens: int = 400) -> torch.Tensor:
    inputs = random_weight(tokens, columns, 7) * torch.linspace(0.3, 3, columns)
    return inputs.T @ inputs / tokens


def test_rtn_is_sign_times_mean_absolute_value() -> None:
    weight = random_weight(6, 20)
    expected = weight.sign() * weight.abs().mean(dim=1, keepdim=True)
    layer = RTN(weight, None, RtnOptions())
    torch.testing.assert_close(layer.reconstruct(), expected, rtol=1e-3, atol=1e-3)
    assert layer.tensors().keys() == {'planes', 'row_scales'}
    assert layer.stored_bytes() == 6 * 3 + 6 * 2


def test_rtn_error_on_white_weights_is_that_of_the_one_bit_quantizer() -> None:
    weight = random_weight(256, 512)
    errors = [
        relative_error(weight, RTN(weight, None, RtnOptions(planes=planes)).reconstruct())
        for planes in (1, 2, 3)
    ]
    assert errors[0] == pytest.approx(0.363, abs=0.005)
    assert errors[1] < 0.14 and errors[2] < 0.06


def test_signplane_beats_rtn_as_the_spec_measured(attention_layer: Any) -> None:
    """Spec section 6, attn_vo: 0.528 for rtn, 0.185 for one sign plane, 0.057 for two."""
    weight, hessian = attention_layer.weight, attention_layer.calibration
    rtn = RTN(weight, None, RtnOptions())
    one = SIGNPLANE(weight, hessian, SignPlaneOptions())
    two = SIGNPLANE(weight, hessian, SignPlaneOptions(planes=2))
    assert 0.40 < output_error(attention_layer, rtn.reconstruct()) < 0.60
    assert output_error(attention_layer, one.reconstruct()) < 0.19
    assert output_error(attention_layer, two.reconstruct()) < 0.062
    assert stored_bits_per_weight([one]) == pytest.approx(1 + 16 / 512 + 128 / 512**2)
    wide = SIGNPLANE(weight, hessian, SignPlaneOptions(scale_bits=16, rounds=0, cycles=0))
    assert stored_bits_per_weight([wide]) == pytest.approx(1 + 32 / 512)


def test_each_part_of_signplane_earns_its_place() -> None:
    small = make_layer('attn_vo', 256, 256, seed=1, tokens=2048)

    def error(**changes: Any) -> float:
        options = SignPlaneOptions(**{'cycles': 2, **changes})
        return output_error(
            small, SIGNPLANE(small.weight, small.calibration, options).reconstruct()
        )

    full = error()
    assert error(balance=False, column_signs='none') > 1.1 * full
    assert error(balance=False, column_signs='none', transform='none') > 1.3 * full
    assert error(transform='haar') > 1.05 * full
    unscaled = {'balance': False, 'column_signs': 'none'}
    assert error(transform='permuted_haar', **unscaled) < error(transform='haar', **unscaled)
    assert error(column_signs='none') > 1.005 * full
    assert error(rounds=0, cycles=0) > 1.15 * full
    assert error(kicks=0) > 1.03 * full
    assert error(cycles=0) > 1.05 * full
    assert error(scale_bits=16) == pytest.approx(full, rel=0.01)


def test_signplane_without_calibration_still_beats_rtn(attention_layer: Any) -> None:
    weight = attention_layer.weight
    rtn = relative_error(weight, RTN(weight, None, RtnOptions()).reconstruct())
    ours = relative_error(weight, SIGNPLANE(weight, None, SignPlaneOptions()).reconstruct())
    assert ours < 0.8 * rtn


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'planes': 2},
        {'balance': False},
        {'column_signs': 'random'},
        {'transform': 'none'},
        {'transform': 'permuted_haar'},
        {'tile_planes': '21'},
    ],
    ids=str,
)
def test_without_calibration_is_the_identity_hessian(changes: dict[str, Any]) -> None:
    """Block by block or as one matrix: the same choices but for ties of rounding."""
    weight = random_weight(160, 431) * torch.linspace(0.2, 2, 431)
    options = SignPlaneOptions(kicks=0, **changes)
    ours: Any = SIGNPLANE(weight, None, options)
    dense: Any = SIGNPLANE(weight, torch.eye(431), options)
    first, second = ours.reconstruct(), dense.reconstruct()
    assert relative_error(weight, first) == pytest.approx(relative_error(weight, second), rel=2e-3)
    differing = unpack_signs(ours.planes, 431) != unpack_signs(dense.planes, 431)
    assert float(differing.float().mean()) < 0.01
    for (_, _, scales), (_, _, expected) in zip(ours.split(), dense.split(), strict=True):
        torch.testing.assert_close(scales, expected, rtol=3e-2, atol=1e-3)


def test_without_calibration_no_matrix_of_the_width_is_made() -> None:
    """A wide layer: a dense Hessian of 40000 inputs alone would take 6 GB and minutes."""
    weight = random_weight(2, 40_000)
    layer = SIGNPLANE(weight, None, FAST)
    assert relative_error(weight, layer.reconstruct()) < 0.4


@pytest.mark.parametrize('shape', [(1, 1), (3, 2), (5, 7), (16, 80), (24, 1152), (10, 431)])
@pytest.mark.parametrize('planes', [1, 2])
@pytest.mark.parametrize('calibrated', [True, False])
def test_signplane_takes_any_width(shape: tuple[int, int], planes: int, calibrated: bool) -> None:
    weight = random_weight(*shape)
    hessian = random_hessian(shape[1]) if calibrated else None
    options = SignPlaneOptions(planes=planes, rounds=2, cycles=1)
    layer = SIGNPLANE(weight, hessian, options)
    layer.check('layer')
    assert layer.reconstruct().shape == shape
    assert relative_error(weight, layer.reconstruct(), hessian) < 0.6


def test_dead_inputs_constant_rows_and_zero_weights() -> None:
    weight = random_weight(8, 48)
    weight[2] = 0.7
    weight[3] = 0.0
    weight[:, 5] = 0.0
    hessian = random_hessian(48)
    hessian[9, :] = hessian[:, 9] = 0.0
    weight[:, 9] = 1e4
    layer = SIGNPLANE(weight, hessian, FAST)
    rebuilt = layer.reconstruct()
    assert torch.isfinite(rebuilt).all()
    # A weight of an input that never moves must not spend the scale of the others.
    assert relative_error(weight, rebuilt, hessian) < 0.6
    assert float(rebuilt[3].abs().max()) < 0.05
    zeros = SIGNPLANE(torch.zeros(4, 16), None, FAST)
    assert not zeros.reconstruct().any()
    dead = SIGNPLANE(random_weight(4, 16), torch.zeros(16, 16), FAST)
    assert not dead.reconstruct().any()


def test_same_seed_same_signs_other_seed_other_signs() -> None:
    weight = random_weight(16, 64)
    layers: list[Any] = [
        SIGNPLANE(weight, None, SignPlaneOptions(column_signs='random', seed=seed, cycles=0))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(layers[0].planes, layers[1].planes)
    assert not torch.equal(layers[0].planes, layers[2].planes)


class _NamedDevices(TorchFunctionMode):
    """Refuses tensors made on whatever device is torch's default."""

    _MAKERS = (
        torch.arange,
        torch.empty,
        torch.eye,
        torch.full,
        torch.ones,
        torch.rand,
        torch.randn,
        torch.tensor,
        torch.zeros,
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        names = kwargs or {}
        if func in self._MAKERS:
            assert names.get('device') is not None, f'{func.__name__} without a device'
        return func(*args, **names)


@pytest.mark.parametrize(
    'changes', [{'stored_bits': 1.5}, {'planes': 2, 'scale_bits': 16}], ids=str
)
@pytest.mark.parametrize('calibrated', [True, False])
def test_every_tensor_is_made_on_the_device_of_the_weights(
    changes: dict[str, Any], calibrated: bool
) -> None:
    weight = random_weight(160, 40)
    hessian = random_hessian(40) if calibrated else None
    options = SignPlaneOptions(cycles=1, **changes)
    with _NamedDevices():
        SIGNPLANE(weight, hessian, options)


def test_unknown_method_is_named() -> None:
    with pytest.raises(HbvlaError, match="'magic' is unknown; .* signplane: .*; rtn: "):
        find_method('magic')
