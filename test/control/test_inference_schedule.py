# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""When the next inference starts."""

from __future__ import annotations

import numpy as np

from hbvla_ros.control.schedule import InferenceSchedule
from hbvla_ros.data import ActionChunk

CHUNK = ActionChunk(np.zeros((11, 2)), 10.0, 0.1, 10.0, 'go', 'test')


def test_due_at_once_without_a_chunk_and_by_fraction_with_one():
    schedule = InferenceSchedule(0.6)
    assert schedule.is_due(10.0)
    schedule.start(10.1, 10.0)
    schedule.accept(CHUNK)
    assert not schedule.is_due(10.55) and schedule.is_due(10.65)
    schedule.forget()
    assert schedule.is_due(10.2)


def test_period_instead_of_fraction():
    schedule = InferenceSchedule(0.6, period=0.2)
    schedule.start(10.0, 9.9)
    schedule.accept(CHUNK)
    assert not schedule.is_due(10.15) and schedule.is_due(10.21)


def test_the_same_images_are_not_new():
    schedule = InferenceSchedule(0.5)
    assert schedule.is_new(10.0)
    schedule.start(10.1, 10.0)
    assert not schedule.is_new(10.0) and schedule.is_new(10.01)


def test_a_clock_that_goes_back_starts_over():
    schedule = InferenceSchedule(0.5)
    schedule.start(10.0, 10.0)
    schedule.accept(CHUNK)
    assert schedule.is_due(3.0) and schedule.is_new(2.9)


def test_due_sooner_when_the_chunk_would_run_out_before_the_next_one_comes():
    schedule = InferenceSchedule(0.9)
    schedule.start(10.1, 10.0)
    schedule.accept(CHUNK)
    assert not schedule.is_due(10.55) and not schedule.is_due(10.55, 0.4)
    assert schedule.is_due(10.65, 0.4) and not schedule.is_due(10.65, 0.3)
    assert schedule.is_due(10.95, 0.0) and schedule.is_due(10.95)
