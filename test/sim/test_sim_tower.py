# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What stands on what, and which box is moved next."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hbvla_ros.sim.tasks.tower import Move, Tower, next_move


def tower_of(positions, sizes=None):
    """Upright boxes at ``positions``."""
    sizes = np.full((len(positions), 3), 0.02) if sizes is None else np.array(sizes)
    turns = np.repeat(np.eye(3)[None], len(positions), axis=0)
    return Tower(np.array(positions, dtype=float), turns, sizes, sizes[:, 2])


def test_levels_count_from_the_table_up():
    ground, on_it = (0.0, 0.5, 0.02), (0.01, 0.5, 0.06)
    tower = tower_of([ground, on_it, (0.2, 0.5, 0.02)])
    assert tower.levels((0, 1, 2)) == 2
    assert tower.levels((1, 0)) == 0
    assert tower.levels((2, 1)) == 1
    assert tower_of([ground, (0.03, 0.5, 0.06)]).levels((0, 1)) == 1
    assert tower_of([ground, (0.0, 0.5, 0.08)]).levels((0, 1)) == 1


def test_next_move_builds_from_below_and_clears_first():
    free = [(-0.2, 0.5, 0.02), (0.0, 0.5, 0.02), (0.2, 0.5, 0.02)]
    move = next_move(tower_of(free), (1, 0, 2))
    assert move.number == 0 and move.place == pytest.approx((0.0, 0.5, 0.04))
    blocked = next_move(tower_of([free[0], free[1], (0.0, 0.51, 0.06)]), (1, 0))
    assert blocked.number == 2 and blocked.place[2] == 0.0
    assert math.dist(blocked.place[:2], free[1][:2]) >= 0.10
    reverse = next_move(tower_of([free[1], (0.0, 0.5, 0.06), free[2]]), (1, 0))
    assert reverse.number == 1 and reverse.place[2] == 0.0
    buried = tower_of([free[1], (0.0, 0.5, 0.06), (0.0, 0.5, 0.10)])
    assert next_move(buried, (0, 2)).number == 2
    assert next_move(buried, (1, 0)).number == 2
    assert next_move(buried, (0, 1, 2)) is None
    # A box on top that nobody asked for does not belong to the tower.
    assert next_move(buried, (0, 1)).number == 2


def test_a_box_in_the_air_is_put_down():
    tower = tower_of([(-0.1, 0.5, 0.2), (0.1, 0.5, 0.02), (0.2, 0.6, 0.02)])
    assert next_move(tower, (0, 1)) == Move(0, (-0.1, 0.5, 0.0))
