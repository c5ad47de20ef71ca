# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Processes that the fault tests of a file share; only what a fault has ended is started anew.

Not of all files: they would go on beside the tests of everything else.
"""

from __future__ import annotations

import contextlib
import dataclasses

import pytest

from hbvla_ros.nodes.faults.drill import Undecided
from hbvla_ros.nodes.faults.kinds import CHUNK, KINDS
from hbvla_ros.nodes.faults.stage import on_stage


@pytest.fixture(scope='module')
def drill(tmp_path_factory):
    """Arms, guard, drivers and a policy that holds as soon as a camera is lost."""
    with on_stage(tmp_path_factory.mktemp('faults')) as made:
        yield made


@pytest.fixture(scope='module')
def simulated_drill(tmp_path_factory):
    """The same in simulated time, and with a policy that lets its chunks end."""
    folder = tmp_path_factory.mktemp('simulated_faults')
    with on_stage(folder, time_scale=1.0, hold_on_loss=False) as made:
        yield made


@pytest.fixture
def rehearse():
    """Brings a fault about: the arms hold within the bound, and nothing forbidden is on the wire.

    What is seen of the wire covers the whole fault, from arms that move to arms that move again.
    """

    def once(drill, kind):
        drill.set_in_motion()
        wire = drill.recorder
        seen, before = [check.count for check in wire.checks], len(wire.violations)
        outcome = drill.rehearse(kind)
        assert outcome.hold.in_time, outcome.hold
        assert outcome.reasons
        drill.recover(kind)
        assert all(check.count > count + 10 for check, count in zip(wire.checks, seen, strict=True))
        assert wire.violations[before:] == []
        return outcome

    def rehearse(drill, fault):
        kind = KINDS[fault] if isinstance(fault, str) else fault
        for _ in range(2):
            with contextlib.suppress(Undecided):
                return once(drill, kind)
        return once(drill, kind)

    return rehearse


@pytest.fixture
def ends_chunk():
    """A kind of fault for a policy node that lets its chunk end."""
    return lambda name: dataclasses.replace(KINDS[name], valid=CHUNK)
