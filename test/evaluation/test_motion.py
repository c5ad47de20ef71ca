# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from hbvla_ros.evaluation.episode import Trace
from hbvla_ros.evaluation.motion import jerk_rms


def trace(commands: np.ndarray, rate: float = 25.0) -> Trace:
    return Trace(np.arange(len(commands)) / rate, commands, commands)


def test_jerk_of_a_cubic_is_its_third_derivative():
    times = np.arange(30) / 25
    commands = np.zeros((30, 14))
    # 2 t^3 has a third derivative of 12 at every instant; twelve joints share it.
    commands[:, 1] = 2 * times**3
    assert jerk_rms(trace(commands)) == pytest.approx(np.sqrt(12**2 / 12))


def test_commands_count_as_they_were_sent_and_not_as_measurements_found_them():
    times = np.arange(30) / 25
    sent = np.zeros((30, 14))
    sent[:, 1] = 2 * times**3
    staircase = np.repeat(sent, 2, axis=0)
    found = Trace(np.arange(60) / 50, staircase, staircase, sent, 1 / 25)
    assert jerk_rms(found) == pytest.approx(np.sqrt(12**2 / 12))
    assert jerk_rms(trace(staircase, 50.0)) > 10 * jerk_rms(found)


def test_grippers_and_parabolas_have_none():
    times = np.arange(30) / 25
    commands = np.zeros((30, 14))
    commands[:, 3] = times**2
    commands[:, [6, 13]] = np.random.default_rng(0).uniform(size=(30, 2))
    assert jerk_rms(trace(commands)) == pytest.approx(0.0, abs=1e-8)


def test_fewer_than_four_commands_say_nothing():
    assert jerk_rms(trace(np.zeros((3, 14)))) is None
    assert jerk_rms(trace(np.zeros((4, 14)))) == 0.0
