# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The faults that are rehearsed: what is done, what the last valid input is, and what must follow.

The arms hold within ``bound`` of the last valid input. What that is differs:

- ``now``: the moment at which a process is killed or stopped, or a clock is set;
- ``picture``: the last picture of the camera that is not the one before, as it arrives;
- ``joints``: the last joint states with the profile's joints, as they arrive;
- ``chunk``: the last row of the last chunk that was sent, for its rows stay valid;
- ``good chunk``: the last chunk inside the limits, which is in force until the first of the others
  arrives;
- ``sole writer``: the moment before a second writer is known, by discovery or by what it sends;
- ``instruction``: the instruction, until another one is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hbvla_ros.nodes.faults import request
from hbvla_ros.nodes.faults.cast import ARMS, GUARD, POLICY

LIVE, DEAD = 0.25, 0.5
NOW, PICTURE, JOINTS, CHUNK = 'now', 'picture', 'joints', 'chunk'
GOOD_CHUNK, SOLE_WRITER, INSTRUCTION = 'good chunk', 'sole writer', 'instruction'
# What is done besides asking drivers or policy to fail.
KILL, PAUSE, INTRUDE, FLOOD = 'kill', 'pause', 'intrude', 'flood'


@dataclass(frozen=True)
class Kind:
    """One row of the fault table.

    Attributes:
        name: as the table has it.
        valid: what the last valid input is, see above.
        reporter: the node that says on /diagnostics why the arms hold.
        reason: what its line, or one of its values, says then.
        value: the name of that value; empty for the line.
        count: the name of a value that is larger then than before the fault; empty for none.
        bound: s from the last valid input to the hold.
        faults: asked of drivers and policy.
        deed: done to the processes; one of the words above, empty for nothing.
        victim: to which process.
        latched: whether the arms stay stopped until a reset; else they go on when the fault ends.
        pulse: s after which drivers and policy are asked no more; 0 for the end of the fault.
    """

    name: str
    valid: str
    reporter: str
    reason: str
    value: str = ''
    count: str = ''
    bound: float = LIVE
    faults: Mapping[str, Any] = field(default_factory=dict)
    deed: str = ''
    victim: str = ''
    latched: bool = False
    pulse: float = 0.0

    def is_named(self, line: str, values: Mapping[str, str], before: Mapping[str, str]) -> bool:
        """Whether a report of the reporter gives the reason.

        Args:
            line: its line.
            values: its values by name.
            before: those of the last report before the fault.
        """
        if self.count and not float(values[self.count]) > float(before.get(self.count, 0.0)):
            return False
        return self.reason in (values[self.value] if self.value else line)


_HEAD = ['cam_high']
_LATE = 'inference takes more than inference_deadline'
_ALL = (
    Kind('camera stops', PICTURE, POLICY, 'image from cam_high is',
         faults={request.CAMERA_STOPS: _HEAD}),
    Kind('camera freezes', PICTURE, POLICY, 'cam_high is frozen',
         faults={request.CAMERA_FREEZES: _HEAD}),
    Kind('joint states stop', JOINTS, ARMS, 'holding: no joint states for',
         faults={request.JOINTS_STOP: True}),
    Kind('wrong joint names', JOINTS, ARMS, "_waist' is missing",
         value='last joint states refused', count='joint states refused',
         faults={request.WRONG_NAMES: True}),
    Kind('malformed images', CHUNK, POLICY, 'camera cam_high: ',
         faults={request.BAD_IMAGES: _HEAD}),
    Kind('policy hangs', CHUNK, POLICY, _LATE, faults={request.HANG: True}),
    Kind('2 s inference spike', CHUNK, POLICY, _LATE, faults={request.SPIKE: 2.0}, pulse=0.8),
    Kind('NaN action', CHUNK, POLICY, 'policy returned nan for left_waist',
         faults={request.BAD_ACTION: 'nan'}),
    Kind('inf action', CHUNK, POLICY, 'policy returned inf for left_waist',
         faults={request.BAD_ACTION: 'inf'}),
    Kind('out-of-limit action', GOOD_CHUNK, ARMS, 'now left_waist from 10 to',
         faults={request.OUTSIDE: True}, latched=True),
    Kind('instruction flood', INSTRUCTION, POLICY, '', count='instructions received', deed=FLOOD),
    Kind('policy process killed', NOW, ARMS, 'policy_node is silent', bound=DEAD,
         deed=KILL, victim=POLICY),
    Kind('policy process stands still', NOW, ARMS, 'policy_node is silent', bound=DEAD,
         deed=PAUSE, victim=POLICY),
    Kind('arm process killed', NOW, GUARD, 'stopped: arm_node is silent', bound=DEAD,
         deed=KILL, victim=ARMS, latched=True),
    Kind('arm process stands still', NOW, GUARD, 'stopped: arm_node is silent', bound=DEAD,
         deed=PAUSE, victim=ARMS, latched=True),
    Kind('guard killed', NOW, ARMS, 'guard_node is silent', bound=DEAD, deed=KILL, victim=GUARD),
    Kind('two writers', SOLE_WRITER, ARMS, 'has another writer, /leader_arm', deed=INTRUDE,
         latched=True),
    # Without pictures of the new time there is no new chunk, and it is the jump alone that holds.
    Kind('clock jumps back', NOW, ARMS, '', count='clock jumps',
         faults={request.CLOCK_BACK: 5.0, request.CAMERA_STOPS: _HEAD}),
)  # fmt: skip
KINDS = {kind.name: kind for kind in _ALL}
