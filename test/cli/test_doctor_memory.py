# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil

import pytest
import torch

from hbvla_ros.cli import doctor_memory
from hbvla_ros.cli.doctor_memory import Need, compare, needs
from hbvla_ros.errors import HbvlaError
from hbvla_ros.policy import Policy
from hbvla_ros.quantization.pipeline import Request, quantize_checkpoint
from hbvla_ros.resources import share_path
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.platform import Platform

POLICY = share_path('models', 'aloha_sim_small')


@pytest.fixture(scope='module')
def deployed(tmp_path_factory):
    folder = tmp_path_factory.mktemp('deployed') / 'rtn'
    checkpoint = Checkpoint.open(POLICY, Platform.read(POLICY / 'platform.json'))
    quantize_checkpoint(checkpoint, Request('rtn', 1.0), folder)
    return folder


def memory_of(network) -> int:
    tensors = {t.data_ptr(): t for t in (*network.parameters(), *network.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


@pytest.mark.parametrize('device, dtype', [('cpu', torch.float32), ('cuda', torch.bfloat16)])
def test_weights_are_those_of_the_loaded_network_to_the_byte(deployed, device, dtype):
    (full,) = needs(POLICY, None, device)
    assert full.weights == memory_of(Policy.load(POLICY, dtype=dtype).network)
    by_residency = {need.residency: need for need in needs(deployed, None, device)}
    assert list(by_residency) == ['bf16', 'packed'], 'the default comes first'
    for residency, need in by_residency.items():
        network = Policy.load(deployed, dtype=dtype, residency=residency).network
        assert need.weights == memory_of(network), residency
        assert need.host == (0 if device == 'cpu' else need.weights + 450_000_000)


def peak_of_an_inference(policy: Policy) -> int:
    """Most bytes that torch had allocated at once besides what was there before."""
    policy.warmup()
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        policy.warmup()
    present = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == '[memory]':
            present += event.nbytes()
            peak = max(peak, present)
    return peak


@pytest.mark.parametrize('residency', ['bf16', 'packed'])
def test_activations_are_estimated_above_the_measured_ones_and_below_twice(deployed, residency):
    estimates = {need.residency: need.activations for need in needs(deployed, None, 'cpu')}
    measured = peak_of_an_inference(Policy.load(deployed, residency=residency))
    assert measured <= estimates[residency] <= 2 * measured


def needing(host=0, **weights):
    return lambda device: [Need(name, int(size), 0, 0, int(host)) for name, size in weights.items()]


def gpu(free):
    return {'name': 'GPU of tests', 'free': free, 'total': 8e9, 'capability': [9, 0]}


@pytest.mark.parametrize(
    'wanted, gpus, state, fix',
    [
        (needing(bf16=3e9, packed=1e9), [gpu(1e9), gpu(4e9)], 'ok', 'none'),
        (needing(bf16=15e9, packed=1e9), [gpu(4e9)], 'warning', 'residency:=packed'),
        (needing(bf16=15e9, packed=5e9), [gpu(4e9)], 'fault', 'free 1.00 GB of GPU memory'),
        (needing(host=1e15, bf16=1e9), [gpu(4e9)], 'fault', 'of main memory'),
        (needing(bf16=1e15, packed=1e6), [], 'warning', 'residency:=packed'),
        (needing(**{doctor_memory.FULL_PRECISION: 1e15}), [], 'fault', 'hbvla quantize'),
    ],
)
def test_need_is_compared_with_what_is_free(wanted, gpus, state, fix):
    row = compare('policy', wanted, gpus)
    assert row.state == state and fix in row.fix, row
    assert ('GPU of tests has' in row.found) == bool(gpus)


def test_the_row_names_every_residency(deployed):
    row = doctor_memory.memory_row(deployed, None)
    assert row.state == 'ok', row
    assert (
        'needs bf16 ' in row.found and '; packed ' in row.found and 'weights 6.66 MB' in row.found
    )


def test_a_folder_that_is_no_checkpoint_is_bad_input(tmp_path):
    shutil.copy(POLICY / 'platform.json', tmp_path)
    with pytest.raises(HbvlaError, match='config.json'):
        doctor_memory.memory_row(tmp_path, None)
