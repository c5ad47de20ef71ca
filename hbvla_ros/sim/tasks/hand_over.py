# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Hand the named object to the named arm, in mid-air.

Three objects stand where both arms reach them, so that only the instruction tells which of them is
wanted and which arm gives it. What counts as handed over is shared with ``transfer_cube``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.sim.arms import ARMS
from hbvla_ros.sim.objects import OBJECTS
from hbvla_ros.sim.tasks.base import (
    Layout,
    Progress,
    Task,
    closest,
    standing_poses,
    updated_since,
)
from hbvla_ros.sim.view import TABLE

if TYPE_CHECKING:
    from hbvla_ros.sim.view import SceneView

MEETING = (0.0, 0.5, 0.18)  # m, where the object changes hands
_HELD = (0.14, 0.5, 0.22)  # m, where the right arm holds it in the end; the left one mirrors x
_REACH_X = 0.10  # m from the middle, as far as either arm grasps well
_REACH_Y = (0.38, 0.62)  # m
_APART = 0.10  # m between the centres of any two objects
_YAW = 0.2  # rad

STAGES = ('nothing', 'touched', 'lifted', 'transfer attempted', 'transferred', 'let go')
NAMES = tuple(prop.name for prop in OBJECTS)


@dataclass(frozen=True)
class HandOverProgress(Progress):
    """``shared``: both grippers have touched the object at once since it last lay on the table."""

    shared: bool = False


def held_place(receiver: int) -> tuple[float, float, float]:
    """Where arm 0 (left) or 1 (right) holds what it was given, m."""
    x, y, z = _HELD
    return (-x if receiver == 0 else x), y, z


def reward(view: SceneView, name: str, giver: int) -> int:
    """The reward of gym-aloha's ``AlohaTransferCube-v0`` at this instant.

    Args:
        view: the scene of now.
        name: of the prop that is handed over.
        giver: arm 0 (left) or 1 (right) that hands it over; gym-aloha's is 1.

    Returns:
        0; 1 touched by the giver; 2 and off the table; 3 touched by the receiver; 4 and off the
        table.
    """
    lifted = not view.touching(name, TABLE)
    if view.touched_by(name, 1 - giver):
        return 4 if lifted else 3
    if view.touched_by(name, giver):
        return 2 if lifted else 1
    return 0


def follow(view: SceneView, name: str, giver: int, progress: HandOverProgress) -> HandOverProgress:
    """Progress one step later; arguments as for :func:`reward`.

    Done is more than the full reward: the object has come from the other gripper, and that one
    has let go.
    """
    now = reward(view, name, giver)
    given = view.touched_by(name, giver)
    shared = not view.touching(name, TABLE) and (progress.shared or (now == 4 and given))
    done = shared and now == 4 and not given
    return HandOverProgress(
        max(progress.best_stage, 5 if done else now),
        updated_since(done, progress.done_since, view.time),
        shared,
    )


@dataclass(frozen=True, eq=False)
class HandOverLayout(Layout):
    """What is asked for.

    ``target`` is an index into ``objects.OBJECTS``, ``receiver`` arm 0 (left) or 1 (right).
    """

    target: int
    receiver: int


class HandOver(Task[HandOverLayout, HandOverProgress]):
    """Three objects in the middle; one of them goes from one arm to the other."""

    name = 'hand_over'
    stages = STAGES
    max_seconds = 20.0
    props = OBJECTS

    @property
    def instructions(self) -> tuple[str, ...]:
        """One sentence for each object and receiving arm."""
        return tuple(f'hand the {prop.phrase} to the {arm} arm' for prop in OBJECTS for arm in ARMS)

    def sample(self, random: np.random.Generator) -> HandOverLayout:
        """Draw the object, the arm that gets it, and the places."""
        target = int(random.integers(len(OBJECTS)))
        receiver = int(random.integers(len(ARMS)))
        yaws = random.uniform(-_YAW, _YAW, len(OBJECTS))
        poses = standing_poses(OBJECTS, _sample_places(random), yaws)
        sentence = self.instructions[len(ARMS) * target + receiver]
        return HandOverLayout(sentence, poses, target, receiver)

    def start(self, layout: HandOverLayout) -> HandOverProgress:
        """Nothing has been touched."""
        return HandOverProgress()

    def track(
        self, view: SceneView, layout: HandOverLayout, progress: HandOverProgress
    ) -> HandOverProgress:
        """Look at who touches the object."""
        return follow(view, NAMES[layout.target], 1 - layout.receiver, progress)

    def target(self, view: SceneView, layout: HandOverLayout) -> str:
        """The object asked for."""
        return NAMES[layout.target]

    def goal(self, view: SceneView, layout: HandOverLayout) -> NDArray[np.float64]:
        """Where the receiving arm holds it in the end."""
        return np.array(held_place(layout.receiver))


def _sample_places(random: np.random.Generator) -> NDArray[np.float64]:
    """Places (3, 2) within reach of both arms, apart from each other."""
    count = len(OBJECTS)
    while True:
        across = random.uniform(-_REACH_X, _REACH_X, count)
        places = np.stack([across, random.uniform(*_REACH_Y, count)], axis=1)
        if closest(places) >= _APART:
            return places
