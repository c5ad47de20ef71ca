# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What the stacking task asks for, and where its boxes lie."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from hbvla_ros.sim import kinematics
from hbvla_ros.sim.experts.motion import solve
from hbvla_ros.sim.tasks.stack import BOXES, Stack
from hbvla_ros.sim.tasks.tower import reaches


def test_every_order_of_two_and_three_is_asked_for():
    sentences = Stack().instructions
    assert len(set(sentences)) == len(sentences) == 12
    assert 'stack the red cube on the blue block' in sentences
    assert 'stack the red cube on the blue block and then the green cube on top' in sentences
    layouts = [Stack().sample(np.random.default_rng(seed)) for seed in range(300)]
    assert {layout.instruction for layout in layouts} == set(sentences)
    share = np.mean([len(layout.order) == 3 for layout in layouts])
    assert 0.25 < share < 0.42


def test_layouts_leave_room_and_are_within_reach():
    for seed in range(300):
        layout = Stack().sample(np.random.default_rng(seed))
        places = layout.poses[:, :2]
        assert (np.abs(places[:, 0]) <= 0.25).all()
        assert ((places[:, 1] >= 0.39) & (places[:, 1] <= 0.61)).all()
        assert min(math.dist(a, b) for a, b in itertools.combinations(places, 2)) >= 0.10
        x, y = places[layout.order[0]]
        height = 0.0
        for lower, upper in itertools.pairwise(layout.order):
            height += 2 * BOXES[lower].half_height
            arm = 0 if places[upper, 0] < 0 else 1
            assert reaches(arm, x)
            for point in ((*places[upper], 0.02), (x, y, height + 0.07)):
                forward, left, up, pitch = kinematics.forward(solve(arm, point))
                sign = 1 if arm == 0 else -1
                assert sign * (forward - 0.469) == pytest.approx(point[0], abs=1e-3)
                assert 0.5 + sign * left == pytest.approx(point[1], abs=1e-3)
                assert (up, pitch) == pytest.approx((point[2], math.pi / 2), abs=1e-3)


def test_lower_boxes_lie_on_either_side_of_the_arm_that_acts():
    layouts = [Stack().sample(np.random.default_rng(seed)) for seed in range(100)]
    pairs = [layout.poses[list(layout.order[:2]), 0] for layout in layouts]
    across = [bool(lower * upper < 0) for lower, upper in pairs]
    assert 15 < sum(across) < 85
    assert 30 < sum(upper < 0 for _, upper in pairs) < 70
