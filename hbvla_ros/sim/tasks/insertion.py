# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Put the named peg into the socket in mid-air: gym-aloha's insertion with a choice of pegs.

Sizes, places on the table and the meaning of the stages are those of gym-aloha's
``AlohaInsertion-v0``: the left arm brings the socket, the right arm the peg, and the peg must get
as far as the pin in the middle of the socket. There is one more peg of another colour, so that
the instruction matters, and pegs and socket lie a little askew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.sim.objects import Part, Prop
from hbvla_ros.sim.tasks.base import Layout, Progress, Task, standing_poses, updated_since
from hbvla_ros.sim.view import TABLE

if TYPE_CHECKING:
    from hbvla_ros.sim.view import SceneView

LENGTH = 0.06  # m, half of the peg's and of the socket's length; both lie along their x axis
PEG_HALF = 0.01  # m, half of the peg's thickness
SOCKET_HALF = 0.022  # m, half of the socket's thickness, outside
SOCKET_WALL = 0.002  # m, half of the thickness of a wall
HOLE_HALF = SOCKET_HALF - 2 * SOCKET_WALL
PIN_HALF = 0.04  # m, half of the pin's length: the peg goes LENGTH - PIN_HALF deep
AT_PIN = 0.004  # m between the peg's end and the pin that still counts as touching it
_INERTIA = (5e-5, 1.5e-4, 1.5e-4)
_SOCKET_COLOUR = (0.12, 0.30, 0.90)
_PIN_COLOUR = (0.25, 0.25, 0.28)

STAGES = ('nothing', 'both touched', 'both lifted', 'peg at the socket', 'inserted')


def _peg(colour: str, shade: tuple[float, float, float]) -> Prop:
    part = Part('', 'box', (LENGTH, PEG_HALF, PEG_HALF), shade)
    return Prop(f'{colour}_peg', f'{colour} peg', (part,), PEG_HALF, inertia=_INERTIA)


def _socket() -> Prop:
    half, wall = SOCKET_HALF, SOCKET_WALL
    flat, upright = (LENGTH, HOLE_HALF, wall), (LENGTH, wall, HOLE_HALF)
    parts = (
        Part('bottom', 'box', flat, _SOCKET_COLOUR, (0.0, 0.0, wall - half)),
        Part('top', 'box', flat, _SOCKET_COLOUR, (0.0, 0.0, half - wall)),
        Part('near', 'box', upright, _SOCKET_COLOUR, (0.0, wall - half, 0.0)),
        Part('far', 'box', upright, _SOCKET_COLOUR, (0.0, half - wall, 0.0)),
        Part('pin', 'box', (PIN_HALF, PEG_HALF, PEG_HALF), _PIN_COLOUR),
    )
    return Prop('socket', 'socket', parts, half, inertia=_INERTIA)


SOCKET = _socket()
PEGS = (_peg('red', (0.85, 0.10, 0.10)), _peg('green', (0.10, 0.65, 0.20)))


@dataclass(frozen=True, eq=False)
class InsertionLayout(Layout):
    """``peg`` is the number of the peg asked for, an index into ``PEGS``."""

    peg: int


class Insertion(Task[InsertionLayout, Progress]):
    """A socket on the left, two pegs on the right; one peg is asked for."""

    name = 'insertion'
    stages = STAGES
    max_seconds = 20.0
    stay_seconds = 0.12  # gym-aloha counts an instant
    props = (SOCKET, *PEGS)

    @property
    def instructions(self) -> tuple[str, ...]:
        """Two sentences a peg."""
        return tuple(
            sentence
            for peg in PEGS
            for sentence in (
                f'insert the {peg.phrase} into the socket',
                f'put the {peg.phrase} into the blue socket',
            )
        )

    def sample(self, random: np.random.Generator) -> InsertionLayout:
        """Draw the sentence, then the places: pegs at least 0.085 m apart across the table."""
        number = int(random.integers(len(self.instructions)))
        while True:
            across = random.uniform(0.4, 0.6, len(self.props))
            if abs(across[1] - across[2]) >= 0.085:
                break
        along = random.uniform(0.1, 0.2, len(self.props)) * np.array([-1.0, 1.0, 1.0])
        yaws = random.uniform(-0.25, 0.25, len(self.props))
        poses = standing_poses(self.props, np.stack([along, across], axis=1), yaws)
        return InsertionLayout(self.instructions[number], poses, number // 2)

    def start(self, layout: InsertionLayout) -> Progress:
        """Nothing has been touched."""
        return Progress()

    def track(self, view: SceneView, layout: InsertionLayout, progress: Progress) -> Progress:
        """Look at the contacts, and at how deep the peg is."""
        stage = _stage(view, PEGS[layout.peg].name)
        since = progress.done_since
        # Nothing holds the peg but the hands: once it has counted, pulling it out is no failure.
        if not self.success(progress, view.time):
            since = updated_since(stage == len(STAGES) - 1, since, view.time)
        return Progress(max(progress.best_stage, stage), since)

    def target(self, view: SceneView, layout: InsertionLayout) -> str:
        """The peg asked for."""
        return PEGS[layout.peg].name

    def goal(self, view: SceneView, layout: InsertionLayout) -> NDArray[np.float64]:
        """Where the peg's centre is once it is inserted."""
        axis = mouth_axis(view.rotation(SOCKET.name))
        return np.asarray(view.position(SOCKET.name) + (LENGTH + PIN_HALF) * axis)


def mouth_axis(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3,) the axis of a peg or socket with this turn (3, 3), in the sense of the world's x.

    Both are the same from either end.
    """
    axis = rotation[:, 0]
    return np.asarray(axis if axis[0] >= 0 else -axis)


def _stage(view: SceneView, peg: str) -> int:
    """Progress at this instant, an index into ``STAGES``."""
    touched = view.touched_by(SOCKET.name, 0) and view.touched_by(peg, 1)
    lifted = not view.touching(SOCKET.name, TABLE) and not view.touching(peg, TABLE)
    if lifted and view.touching(peg, SOCKET.name):
        return 4 if inserted(view, peg) else 3
    if touched:
        return 2 if lifted else 1
    return 0


def inserted(view: SceneView, peg: str) -> bool:
    """Whether an end of the peg is inside the socket and at its pin."""
    turn = view.rotation(SOCKET.name)
    centre = turn.T @ (view.position(peg) - view.position(SOCKET.name))
    reach = LENGTH * (turn.T @ view.rotation(peg)[:, 0])
    for end in (centre + reach, centre - reach):
        inside = max(abs(end[1]), abs(end[2])) < HOLE_HALF
        if inside and abs(end[0]) < PIN_HALF + AT_PIN:
            return True
    return False
