# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Which frames of recorded episodes are drawn for calibration and for the held-out check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

# Number of the episode and of the frame in it.
Pick = tuple[int, int]


@dataclass(frozen=True)
class Draw:
    """Frames in the order they are tried in; unusable ones are passed over.

    Attributes:
        calibration: candidates for calibration.
        calibration_count: how many of them are wanted.
        held_out: candidates for the held-out check; the same iterator as ``calibration`` where
            both come from the same episodes.
        held_out_count: how many of them are wanted.
        separate: whether the held-out frames are of other episodes.
    """

    calibration: Iterator[Pick]
    calibration_count: int
    held_out: Iterator[Pick]
    held_out_count: int
    separate: bool


def draw_frames(
    lengths: Sequence[int], frames: int, held_out: int, random: np.random.Generator
) -> Draw:
    """Draw frames spread over the episodes (spec 1.1).

    With at least as many episodes as frames, each frame is a uniformly random one of another
    episode; otherwise each episode gives the same number of random frames, up to one. No frame is
    drawn twice. Held-out frames are of other episodes wherever that leaves enough of them for
    calibration; otherwise they are what calibration leaves, at least an eighth of all.

    Args:
        lengths: frames of each episode.
        frames: wanted for calibration; fewer where there are not so many.
        held_out: wanted beside them.
        random: source of the draw.
    """
    order = [int(number) for number in random.permutation(len(lengths)) if lengths[number]]
    total = sum(lengths)
    if held_out == 0:
        return Draw(_spread(order, lengths, random), min(frames, total), iter(()), 0, True)
    share = held_out / (frames + held_out)
    # Never most of them: calibration should see many episodes.
    reserved = min(max(1, round(len(order) * share)), len(order) // 2)
    others, rest = order[:reserved], order[reserved:]
    enough = sum(lengths[number] for number in rest) >= frames
    if reserved > 0 and enough and sum(lengths[number] for number in others) >= held_out:
        calibration = _spread(rest, lengths, random)
        return Draw(calibration, frames, _spread(others, lengths, random), held_out, True)
    together = _spread(order, lengths, random)
    # Calibration comes first, but what was to be held out does not vanish altogether.
    kept = min(held_out, max(total - frames, total // 8, 1)) if total > 1 else 0
    return Draw(together, min(frames, total - kept), together, kept, False)


def _spread(
    episodes: Sequence[int], lengths: Sequence[int], random: np.random.Generator
) -> Iterator[Pick]:
    """One random frame of every episode, then another one of every episode, and so on."""
    frames = {number: random.permutation(lengths[number]) for number in episodes}
    return (
        (number, int(frames[number][turn]))
        for turn in range(max((lengths[number] for number in episodes), default=0))
        for number in episodes
        if turn < lengths[number]
    )
