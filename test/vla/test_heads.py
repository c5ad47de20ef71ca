# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch

from hbvla_ros.vla.heads import (
    DiffusionSchedule,
    RegressionHead,
    discrete_values,
    timestep_embedding,
)


def test_schedule_levels_follow_the_squared_cosine():
    schedule = DiffusionSchedule.squared_cosine(50, 10)
    # Products telescope to f((t + 1) / 50) / f(0) until a beta is cut at 0.999.
    level = [math.cos((t / 50 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(51)]
    for step in (0, 1, 25, 48):
        assert schedule.alphas[step] == pytest.approx(level[step + 1] / level[0], rel=1e-4)
    assert schedule.alphas[49] == pytest.approx(schedule.alphas[48] * 0.001, rel=1e-4)
    assert schedule.timesteps == (45, 40, 35, 30, 25, 20, 15, 10, 5, 0)


@pytest.mark.parametrize(
    'inference, first, stride, count', [(50, 49, 1, 50), (1, 0, 50, 1), (7, 42, 7, 7)]
)
def test_schedule_has_leading_spacing(inference, first, stride, count):
    schedule = DiffusionSchedule.squared_cosine(50, inference)
    assert (schedule.timesteps[0], schedule.stride) == (first, stride)
    assert len(schedule.timesteps) == count and schedule.timesteps[-1] == 0


def test_step_by_hand():
    schedule = DiffusionSchedule((0.64, 0.25), (1, 0), 1)
    sample, noise = torch.tensor([0.5, 5.0]), torch.tensor([0.2, 0.2])
    # x0 = (x - sqrt(0.75) e) / 0.5, clipped to 1; back to level 0.64: 0.8 x0 + 0.6 e.
    clean = (0.5 - math.sqrt(0.75) * 0.2) / 0.5
    wanted = torch.tensor([0.8 * clean + 0.6 * 0.2, 0.8 * 1.0 + 0.6 * 0.2])
    torch.testing.assert_close(schedule.step(sample, noise, 1), wanted)
    # The last step lands on the clean sample, clipped.
    wanted = torch.tensor([(0.5 - 0.6 * 0.2) / 0.8, 1.0])
    torch.testing.assert_close(schedule.step(sample, noise, 0), wanted)


def test_timestep_embedding_by_hand():
    actual = timestep_embedding(torch.tensor([0, 3]), 4)
    wanted = torch.tensor([
        [0.0, 0.0, 1.0, 1.0],
        [math.sin(3), math.sin(3e-4), math.cos(3), math.cos(3e-4)],
    ])  # fmt: skip
    torch.testing.assert_close(actual, wanted)


def test_discrete_values_by_hand():
    logits = torch.full((4, 400), -1.0)
    # Ids count down from the vocabulary's end; out of range goes to the nearest bin.
    for row, identifier in enumerate([319, 318, 64, 350]):
        logits[row, identifier] = 1.0
    centre = 1 / 255
    wanted = torch.tensor([-1 + centre, -1 + 3 * centre, 1 - centre, -1 + centre])
    torch.testing.assert_close(discrete_values(logits, 320, 256), wanted)


def test_regression_head_by_hand():
    """With unit norms and zero blocks a row is fc2(norm(relu(fc1(norm(x)))))."""
    head = RegressionHead(4, 2, 1, 1)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
        for name in ('layer_norm1', 'layer_norm2'):
            getattr(head.model, name).weight.fill_(1.0)
        head.model.fc1.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1.0]]))
        head.model.fc2.weight.copy_(torch.tensor([[1.0, 3.0]]))
        actual = head(torch.tensor([[[-3.0, -1.0, 1.0, 3.0]]]))
    # relu gives (0, 1.34), its layer norm (-1, 1), so the row is -1 + 3.
    torch.testing.assert_close(actual, torch.tensor([[[2.0]]]), atol=1e-4, rtol=0)
