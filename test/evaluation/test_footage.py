# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import imageio.v2 as imageio
import numpy as np
import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation import footage
from hbvla_ros.evaluation.episode import EpisodeResult, Trace
from hbvla_ros.sim.experts.pick_place import PickPlaceExpert
from hbvla_ros.sim.simulation import AlohaSimulation


def expert_episode(seed: int, settle: float = 0.0, rate: float = 25.0) -> EpisodeResult:
    """An episode of the scripted expert, recorded as the harness does."""
    simulation = AlohaSimulation(32, rate)
    simulation.reset(seed)
    simulation.command(simulation.joint_positions())
    for _ in range(round(settle * rate)):
        simulation.step()
    expert, times, commands, positions = PickPlaceExpert(simulation), [], [], []
    while not simulation.success() and len(times) < 600:
        times.append(len(times) / rate)
        commands.append(expert.command())
        positions.append(simulation.joint_positions())
        simulation.command(commands[-1])
        simulation.step()
    trace = Trace(np.array(times), np.stack(commands), np.stack(positions))
    simulation.close()
    return EpisodeResult(
        seed, simulation.instruction, simulation.success(), simulation.stage(),
        simulation.time, 1, (0.1,), trace,
    )  # fmt: skip


@pytest.fixture(scope='module')
def episode() -> EpisodeResult:
    return expert_episode(3_000_004)


def test_replay_ends_as_the_episode_did_and_draws_it(episode):
    drawn = footage.replay(episode, 25.0, size=(90, 120), instants=4, strip_size=40)
    assert episode.success and drawn.success
    assert len(drawn.frames) == len(episode.trace) and drawn.rate == 25.0
    assert drawn.frames[0].shape == (90, 120, 3)
    assert not np.array_equal(drawn.frames[0], drawn.frames[-1])
    assert [time for time, _ in drawn.strip] == pytest.approx(
        episode.trace.times[np.linspace(0, len(episode.trace) - 1, 4).round().astype(int)]
    )
    strip = footage.strip_picture(drawn, gap=2)
    assert strip.shape == (3 * 40 + 2 * 2, 4 * 40 + 3 * 2, 3)


def test_replay_at_the_rate_of_the_joint_states_settles_first():
    episode = expert_episode(3_000_006, settle=0.6, rate=50.0)
    drawn = footage.replay(episode, 50.0, settle=0.6, size=(60, 80), instants=2, strip_size=32)
    assert episode.success and drawn.success
    assert len(drawn.frames) == (len(episode.trace) + 1) // 2 and drawn.rate == 25.0


def test_films_of_different_length_are_shown_side_by_side(episode, tmp_path):
    long = footage.replay(episode, 25.0, size=(90, 120), instants=2, strip_size=32)
    short = footage.Footage(long.frames[:5], long.rate, long.strip, long.success)
    frames = list(footage.side_by_side([long, short], ['one', 'two']))
    assert len(frames) == len(long.frames)
    height, width, _ = frames[0].shape
    assert height % 2 == width % 2 == 0
    # The short film rests on its last frame while the long one goes on.
    assert np.array_equal(frames[-1][:, -120:], frames[4][:, -120:])
    assert not np.array_equal(frames[-1][:, :120], frames[4][:, :120])
    path = tmp_path / 'film.mp4'
    footage.write_video(iter(frames), long.rate, path)
    assert list(tmp_path.iterdir()) == [path]
    with imageio.get_reader(path) as reader:
        assert reader.get_meta_data()['fps'] == 25.0
        first = next(iter(itertools.islice(reader, 1)))
    assert first.shape == frames[0].shape
    assert np.abs(first.astype(int) - frames[0]).mean() < 6  # H.264 at quality 27


def test_an_episode_without_commands_cannot_be_drawn(episode):
    empty = Trace(np.empty(0), np.empty((0, 14)), np.empty((0, 14)))
    nothing = EpisodeResult(3_000_000, 'x', False, 0, 0.0, 0, (), empty)
    with pytest.raises(HbvlaError, match='seed 3000000: the episode has no commands'):
        footage.replay(nothing)
