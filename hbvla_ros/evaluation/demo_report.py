# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What the demo measured, as the content of its report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any

from hbvla_ros.evaluation import footage, plots
from hbvla_ros.evaluation.episode import EpisodeResult, Evaluation
from hbvla_ros.evaluation.footage import Footage, Picture
from hbvla_ros.evaluation.report import Media
from hbvla_ros.evaluation.versions import versions

# Below this share of the wanted pace a reader is told.
_SLOW = 0.9
_METHOD = (
    'Simulator, policy and arms ran as processes of their own and spoke ROS 2 over DDS, in '
    '{pace} (achieved: {achieved} of it). Every condition ran the same seeds, which no '
    'demonstration uses. An episode fails after {limit:g} s of simulated time. The same policies '
    'also ran in one process, without ROS and without delay.{calibration}'
)


@dataclass(frozen=True)
class Condition:
    """One checkpoint as it was driven.

    Attributes:
        name: as in the report.
        size: content of ``hbvla info --json`` plus ``name``, ``quantized_bytes``, ``driven``.
        over_ros: its episodes over ROS 2.
        in_process: the same seeds without ROS.
    """

    name: str
    size: Mapping[str, Any]
    over_ros: Evaluation
    in_process: Evaluation

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; ``evaluation`` is the one over ROS."""
        return {
            'name': self.name,
            'size': dict(self.size),
            'evaluation': self.over_ros.to_json(),
            'in_process': self.in_process.to_json(),
        }


@dataclass(frozen=True)
class Filmed:
    """An episode that was drawn again, and whether it ended as it did the first time."""

    name: str
    episode: EpisodeResult
    footage: Footage

    @property
    def faithful(self) -> bool:
        """Whether the replay ended as the episode did."""
        return self.footage.success == self.episode.success


def film(conditions: Sequence[Condition], size: tuple[int, int] = (360, 480)) -> list[Filmed]:
    """Draw one seed under every condition: one that the first condition mastered, if any."""
    first = conditions[0].over_ros.episodes
    chosen = next((one.seed for one in first if one.success), first[0].seed)
    films = []
    for condition in conditions:
        settings = condition.over_ros.settings
        episode = next(one for one in condition.over_ros.episodes if one.seed == chosen)
        drawn = footage.replay(episode, settings['trace_rate_hz'], settings['settle_seconds'], size)
        films.append(Filmed(condition.name, episode, drawn))
    return films


def write_film(films: Sequence[Filmed], path: Path) -> None:
    """Write the films side by side as MP4."""
    footage.write_video(_frames(films), films[0].footage.rate, path)


def _frames(films: Sequence[Filmed]) -> Iterator[Picture]:
    captions = [f'{one.name}: {_outcome(one.episode)}' for one in films]
    return footage.side_by_side([one.footage for one in films], captions)


def media(conditions: Sequence[Condition], films: Sequence[Filmed], video: bytes) -> Media:
    """Pictures of the report; films in the order of the conditions."""
    first = films[0]
    trace = first.episode.trace
    arm = ('left', 'right')[plots.moving_arm(trace)]
    replayed = (
        'Simulated again from the recorded commands, for a view from the side.'
        if all(one.faithful for one in films)
        else 'Simulated again from the recorded commands; this time it did not end as the '
        'recorded episode did.'
    )
    return Media(
        video=video,
        poster=footage.jpeg(next(islice(_frames(films), len(first.footage.frames) // 2, None))),
        video_caption=f'Seed {first.episode.seed}, "{first.episode.instruction}". {replayed}',
        strip=footage.jpeg(footage.strip_picture(first.footage)),
        strip_caption='What the policy sees: high camera, left wrist and right wrist over the '
        f'same episode ({first.name.lower()}), '
        + ', '.join(f'{abs(time):.1f}' for time, _ in first.footage.strip)
        + ' s after its start.',
        tracking=plots.joint_tracking(trace),
        tracking_caption=f'The {arm} arm in the same episode: commands as the arm node sent them, '
        'joint states as the robot published them. A gripper that holds an object does not reach '
        'its command.',
        latency=plots.latency_distribution(
            {
                one.name: [
                    value for episode in one.over_ros.episodes for value in episode.latencies
                ]
                for one in conditions
            }
        ),
        latency_caption='From the arrival of the images a chunk was made from to the arrival of '
        'the chunk, both at a fourth process: waiting, decoding, inference and DDS together. '
        'Packed layers are expanded by the torch reference when they are loaded: that saves bytes '
        'on disk, not time.',
    )


def content(
    conditions: Sequence[Condition],
    sizes: Sequence[Mapping[str, Any]],
    films: Sequence[Filmed],
    command: str,
    quick: bool,
) -> dict[str, Any]:
    """The content of ``report.json``, from which the page is rendered."""
    settings = conditions[0].over_ros.settings
    factor = settings['real_time_factor']
    count = len(conditions[0].over_ros.episodes)
    return {
        'title': 'Two arms over ROS 2, driven at full precision and at 1 bit',
        'subtitle': f'{count} episodes of {conditions[0].over_ros.task} for each checkpoint, '
        f'{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC',
        'created': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'command': command,
        'quick': quick,
        'notices': _notices(conditions, quick),
        'method': _METHOD.format(
            pace='real time' if factor == 1.0 else f'{factor:g} times real time',
            achieved=', '.join(
                f'{one.over_ros.settings["achieved_real_time_factor"]:.2f}' for one in conditions
            ),
            limit=settings['max_seconds'],
            calibration=_calibration(sizes),
        ),
        'versions': versions(),
        'seeds': [one.seed for one in conditions[0].over_ros.episodes],
        'conditions': [condition.to_json() for condition in conditions],
        'sizes': [dict(size) for size in sizes],
        'film': {
            'seed': films[0].episode.seed,
            'replay_ended_alike': [one.faithful for one in films],
        },
    }


def _calibration(sizes: Sequence[Mapping[str, Any]]) -> str:
    """A sentence on what the driven checkpoints were calibrated on, if any was."""
    used = [size for size in sizes if size['driven'] and size.get('calibration')]
    if not used:
        return ''
    calibration, refinement = used[0]['calibration'], used[0].get('refinement')
    refined = f', then refined in {refinement["steps"]} gradient steps' if refinement else ''
    return (
        f' Quantization was calibrated on {calibration["frames"]} frames of '
        f'{calibration["episodes"]} expert episodes of other seeds{refined}.'
    )


def _notices(conditions: Sequence[Condition], quick: bool) -> list[str]:
    """What a reader must know before the numbers."""
    count = len(conditions[0].over_ros.episodes)
    notices = []
    if quick:
        notices.append(
            f'Quick form: {count} episodes a checkpoint show that everything works; they measure '
            'nothing. The full form runs more.'
        )
    paces = [one.over_ros.settings['achieved_real_time_factor'] for one in conditions]
    wanted = conditions[0].over_ros.settings['real_time_factor']
    if min(paces) < _SLOW * wanted:
        notices.append(
            f'This machine simulated at {min(paces):.2f} of the pace asked for. Simulated time '
            'waits for the simulator but not for the policy, so the policy had more time here '
            'than on a robot.'
        )
    if conditions[0].over_ros.success.successes == 0:
        notices.append(
            f'{conditions[0].name} never succeeded here, so this report says nothing about '
            'what quantization costs.'
        )
    return notices


def _outcome(episode: EpisodeResult) -> str:
    return f'done in {episode.duration:.1f} s' if episode.success else 'not done'
