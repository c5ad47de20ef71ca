# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A simulation that is shared, short episodes, and what is commanded in them."""

from __future__ import annotations

import numpy as np
import pytest

from hbvla_ros.sim import policy_demonstrations
from hbvla_ros.sim.policy_demonstrations import Turns
from hbvla_ros.sim.simulation import AlohaSimulation

SEED = 2_000_040  # the first that is tried


def first_seed(alone: bool, after: int = SEED) -> int:
    """The first seed whose episode the policy drives alone, or not alone."""
    while Turns(np.random.default_rng((after, 2))).alone != alone:
        after += 1
    return after


@pytest.fixture(scope='module')
def simulation():
    simulation = AlohaSimulation(camera_size=32)
    yield simulation
    simulation.close()


@pytest.fixture
def short(monkeypatch):
    """Episodes of 40 steps, in this process."""
    monkeypatch.setattr(policy_demonstrations, 'max_steps', lambda simulation: 40)


@pytest.fixture
def watched(simulation, monkeypatch):
    """The commands that are executed, one a control step."""
    commands = []
    command = AlohaSimulation.command

    def note(self, action):
        commands.append(np.array(action))
        command(self, action)

    monkeypatch.setattr(AlohaSimulation, 'command', note)
    # A label tries commands out as well; they are none of the episode's.
    monkeypatch.setattr(
        policy_demonstrations.Recorder, 'label', lambda self, expert: expert.command()
    )
    monkeypatch.setattr(policy_demonstrations.Recorder, 'episode', lambda self, seed: None)
    return commands


@pytest.fixture(scope='session')
def seed_of():
    """Finds a seed whose episode the policy drives alone, or not alone."""
    return first_seed
