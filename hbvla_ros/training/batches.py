# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""How many frames of a batch each task gets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hbvla_ros.errors import HbvlaError


def batch_counts(batch: int, tasks: Sequence[str], shares: Mapping[str, float]) -> list[int]:
    """Frames of each task in one batch, which together are the batch.

    Args:
        batch: frames a batch.
        tasks: names of the tasks.
        shares: how much of a batch a task gets relative to the others; 1 where it is not named.

    Raises:
        HbvlaError: a share of a task that is not there, one that is not above zero, or a task left
            without a frame.
    """
    for name, share in shares.items():
        if name not in tasks:
            raise HbvlaError(f'--share {name}: not among the tasks of --data, {", ".join(tasks)}')
        if not (math.isfinite(share) and share > 0):
            raise HbvlaError(f'--share {name}={share:g}: must be above 0')
    wanted = [shares.get(name, 1.0) for name in tasks]
    total = sum(wanted)
    ends = [math.floor(batch * sum(wanted[: number + 1]) / total) for number in range(len(tasks))]
    ends[-1] = batch
    counts = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
    for name, count in zip(tasks, counts, strict=True):
        if count < 1:
            raise HbvlaError(
                f'--batch {batch}: no frame of {name} in it, with the shares of {len(tasks)} '
                'tasks; give a larger one or other shares'
            )
    return counts
