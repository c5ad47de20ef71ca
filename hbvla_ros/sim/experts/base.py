# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What a scripted expert is."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Expert(Protocol):
    """Commands for both arms, from the state of a simulation and nothing else.

    It must be memoryless: asked twice in the same state, even after other states in between, it
    gives the same command. So it recovers from wherever noise or a policy has led, and what it
    does is a function that a policy can learn.
    """

    def command(self) -> NDArray[np.float64]:
        """The (14,) command to send at this very state, as ``AlohaSimulation.command`` takes it.

        When the task is done it leads both arms home and keeps them there; an arm that must hold
        something in the end comes to rest where it is.
        """
        ...
