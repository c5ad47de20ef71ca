# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.forms.registry import layer_from_parts
from hbvla_ros.quantization.layer_benchmark import LayerBenchmark, markdown_table
from hbvla_ros.quantization.method_spec import MethodSpec, default_specs
from hbvla_ros.quantization.methods.signplane_options import SignPlaneOptions
from hbvla_ros.quantization.registry import METHODS
from hbvla_ros.quantization.synthetic import make_layer, output_error


def small(*specs: str, **changes: object) -> LayerBenchmark:
    benchmark = LayerBenchmark(
        [MethodSpec.parse(spec) for spec in specs],
        kinds=('gauss_white', 'attn_vo'),
        rows=64,
        columns=96,
        seeds=(0, 3),
        tokens=500,
    )
    return dataclasses.replace(benchmark, **changes)  # type: ignore[arg-type]


def test_specifications_name_bits_preset_and_settings() -> None:
    spec = MethodSpec.parse('signplane:1.5:default:balance=false:damping=0.1')
    assert (spec.method.name, spec.bits) == ('signplane', 1.5)
    assert isinstance(spec.options, SignPlaneOptions)
    assert (spec.options.balance, spec.options.damping) == (False, 0.1)
    assert MethodSpec.parse('rtn').bits is None
    assert MethodSpec.parse('hbllm:col').options == METHODS['hbllm'].presets['col']


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ('quantum', "method 'quantum' is unknown"),
        ('rtn:bold', '--preset bold: rtn has default'),
        ('signplane:1.5:colour=red', '--set colour=red: signplane takes NAME=VALUE of'),
        ('rtn:1.5', '--bits 1.5: rtn takes 1, 2 or 3'),
        ('hbllm:1', 'hbllm:1: --bits 1: the size of hbllm is fixed'),
        ('signplane:0.5', 'signplane:0.5: --bits 0.5: .* ask for --bits'),
    ],
)
def test_specifications_that_cannot_be_are_refused_before_the_work(spec: str, message: str) -> None:
    with pytest.raises(HbvlaError, match=message):
        small('rtn', spec).check()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'kinds': ('attn',)}, '--kinds attn: use some of gauss_white'),
        ({'kinds': ()}, '--kinds: name each once, and at least one'),
        ({'seeds': (1, 1)}, '--seeds: name each once'),
        ({'seeds': (-1,)}, 'seed -1: must be'),
        ({'specs': []}, '--methods: name each once'),
        ({'rows': 0}, '--rows 0: a layer has at least 2'),
        ({'columns': 1}, '--columns 1'),
        ({'tokens': 10}, '--tokens 10: at least 100'),
    ],
)
def test_benchmarks_that_cannot_be_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(HbvlaError, match=message):
        small('rtn', **changes).run()


def test_errors_are_those_of_the_methods_on_the_layers() -> None:
    told: list[str] = []
    rtn, planes = small('rtn', 'signplane:2').run(told.append)
    assert len(told) == 8 and told[0].startswith('rtn  gauss_white  seed 0: error 0.3')
    assert [(r.kind, r.seed) for r in rtn.results] == [
        ('gauss_white', 0), ('gauss_white', 3), ('attn_vo', 0), ('attn_vo', 3)
    ]  # fmt: skip
    layer = make_layer('attn_vo', 64, 96, 3, 500)
    options = METHODS['rtn'].presets['default']
    quantized = METHODS['rtn'].quantize(layer.weight, layer.calibration, options)
    assert rtn.results[3].error == output_error(layer, quantized.reconstruct())
    assert rtn.results[3].stored_bits == 8 * quantized.stored_bytes() / (64 * 96)
    assert rtn.error('attn_vo') == pytest.approx(
        math.sqrt(rtn.results[2].error * rtn.results[3].error)
    )
    # White layers do not count in the mean.
    assert rtn.geometric_mean == pytest.approx(rtn.error('attn_vo'))
    assert planes.geometric_mean is not None and planes.geometric_mean < 0.1
    assert planes.results[0].nominal_bits == 2


def test_same_seeds_same_figures() -> None:
    def figures() -> list[object]:
        benchmark = small('signplane:1.4', 'billm')
        content = benchmark.to_json(benchmark.run())
        for method in content['methods']:
            for layer in method['layers']:
                assert layer.pop('seconds') > 0
        return [content]

    assert figures() == figures()


def test_table_has_a_line_for_each_method() -> None:
    benchmark = small('rtn', 'signplane:2', kinds=('gauss_white',))
    results = benchmark.run()
    table = markdown_table(results).splitlines()
    assert table[0] == '| method | stored bits | gauss_white | geometric mean |'
    assert table[2].startswith(f'| `rtn` | {results[0].stored_bits:.3f} | 0.3')
    assert table[3].startswith('| `signplane:2` | 2.') and table[3].endswith('| - |')


def test_by_default_every_method_is_compared() -> None:
    specs = [MethodSpec.parse(text) for text in default_specs()]
    assert {spec.method.name for spec in specs} == set(METHODS)
    assert {s.bits for s in specs if s.method.name == 'signplane'} == {1.05, 1.3, 2.05}
    small(*default_specs(), rows=1024, columns=1024).check()


@pytest.mark.parametrize('method', METHODS)
def test_what_every_method_stores_is_what_it_is_judged_by(method: str) -> None:
    """The stored tensors alone give the same outputs and the bytes that are counted."""
    layer = make_layer('attn_vo', 130, 136, 0, 1000)
    options = METHODS[method].presets['default']
    quantized = METHODS[method].quantize(layer.weight, layer.calibration, options)
    stored = {name: tensor.clone() for name, tensor in quantized.tensors().items()}
    assert sum(t.numel() * t.element_size() for t in stored.values()) == quantized.stored_bytes()
    again = layer_from_parts('layer', quantized.form, quantized.options(), stored)
    inputs = torch.randn(7, 136, generator=torch.Generator().manual_seed(0))
    wanted = inputs @ quantized.reconstruct().T
    assert (again.apply(inputs) - wanted).norm() <= 1e-5 * wanted.norm()
    assert output_error(layer, again.reconstruct()) < 1
