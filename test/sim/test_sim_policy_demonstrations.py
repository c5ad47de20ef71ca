# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Demonstrations that a policy drives in turns with the expert; a stand-in acts as the policy."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.sim import policy_demonstrations
from hbvla_ros.sim.arms import START_ACTION
from hbvla_ros.sim.dataset import generate
from hbvla_ros.sim.dataset_manifest import DatasetManifest, episode_path
from hbvla_ros.sim.demonstrations import LABEL_EVERY, expert_chunk, max_steps
from hbvla_ros.sim.experts.registry import make_expert
from hbvla_ros.sim.policy_demonstrations import StepImages, Turns, record_policy_episode

SEED = 2_000_040
ROWS = 5


class Swaying:
    """Sways about the start pose as the seed has it, and never gets anything done."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.rows: dict[float, np.ndarray] = {}

    def start(self, seed):
        self.asked, self.rows = [], {}
        self._random = np.random.default_rng(seed)

    def chunk(self, simulation, render):
        rows = START_ACTION + self._random.normal(0.0, 0.05, (ROWS, 14))
        self.asked.append(simulation.time)
        for number, row in enumerate(rows):
            self.rows[round(simulation.time * simulation.control_rate) + number] = row
        return rows


class ActingExpert:
    """Acts as the expert would: the task gets done."""

    def start(self, seed):
        pass

    def chunk(self, simulation, render):
        return expert_chunk(simulation, make_expert(simulation), ROWS)


@dataclass(frozen=True)
class Swayings:
    identity: str = 'swaying@1'

    def __call__(self):
        return Swaying()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'set'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy_demonstrations, 'max_steps', lambda simulation: 40)
        generate(folder, 2, SEED, camera_size=16, actors=Swayings())
    return folder


# Who drives


def test_a_third_of_the_episodes_is_the_policy_s_alone():
    drawn = [Turns(np.random.default_rng((seed, 2))) for seed in range(1_000_000, 1_000_600)]
    assert 0.28 < sum(one.alone for one in drawn) / len(drawn) < 0.39
    alone = next(one for one in drawn if one.alone)
    assert [alone.next() for _ in range(400)] == [(True, True)] + [(True, False)] * 399


def test_turns_alternate_in_spans_of_their_lengths():
    lengths = {True: [], False: []}
    beginners = set()
    for seed in range(200):
        turns = Turns(np.random.default_rng(seed))
        if turns.alone:
            continue
        steps = [turns.next() for _ in range(400)]
        starts = [number for number, (_, begins) in enumerate(steps) if begins]
        assert starts[0] == 0
        beginners.add(steps[0][0])
        for start, end in zip(starts[:-1], starts[1:], strict=True):
            who = {driver for driver, _ in steps[start:end]}
            assert len(who) == 1 and steps[end][0] not in who
            lengths[who.pop()].append(end - start)
    assert beginners == {True, False}
    assert (min(lengths[True]), max(lengths[True])) == (10, 60)
    assert (min(lengths[False]), max(lengths[False])) == (10, 40)


def test_in_its_spans_the_policy_s_rows_are_executed_else_the_expert_s(
    simulation, watched, seed_of
):
    seed = seed_of(alone=False)
    actor = Swaying()
    record_policy_episode(simulation, seed, actor, images=False)
    # The first command is the start pose that the reset gives.
    commands = watched[1:]
    turns = Turns(np.random.default_rng((seed, 2)))
    # Drawn at the start of an episode, between the turns' first draws and their later ones.
    turns._random.integers(LABEL_EVERY)
    asked, left, drivers = [], 0, []
    for step, command in enumerate(commands):
        policy_drives, begins = turns.next()
        drivers.append(policy_drives)
        if policy_drives:
            if begins or left == 0:
                asked.append(step)
                left = ROWS
            left -= 1
            assert np.array_equal(command, actor.rows[step])
        else:
            assert not np.array_equal(command, actor.rows.get(step))
    assert [round(time * 25) for time in actor.asked] == asked
    assert {True, False} == set(drivers)


def test_alone_the_policy_is_asked_every_five_steps_until_the_limit(simulation, watched, seed_of):
    actor = Swaying()
    record_policy_episode(simulation, seed_of(alone=True), actor, images=False)
    assert len(watched) - 1 == max_steps(simulation) == 260
    assert [round(time * 25) for time in actor.asked] == list(range(0, 260, ROWS))


# What is recorded


@pytest.mark.parametrize('alone', [True, False])
def test_labels_are_the_expert_s_at_every_third_step(simulation, monkeypatch, alone, seed_of):
    seed = seed_of(alone)
    states = []
    label = policy_demonstrations.Recorder.label

    def note(self, expert):
        states.append((simulation.time, simulation.save_state()))
        return label(self, expert)

    monkeypatch.setattr(policy_demonstrations.Recorder, 'label', note)
    episode = record_policy_episode(simulation, seed, Swaying(), images=False)
    steps = [round(time * 25) for time, _ in states]
    assert steps[0] < LABEL_EVERY and set(np.diff(steps)) == {LABEL_EVERY}
    assert episode.chunks.shape == (len(steps), 16, 14)
    expert = make_expert(simulation)
    for place in (0, len(steps) // 2, -1):
        simulation.restore_state(states[place][1])
        expected = expert_chunk(simulation, expert).astype(np.float32)
        assert np.array_equal(episode.chunks[place], expected)
        pose = simulation.joint_positions().astype(np.float32)
        assert np.array_equal(episode.proprioception[place], pose)


def test_an_episode_ends_a_little_after_success(simulation, seed_of):
    episode = record_policy_episode(simulation, seed_of(alone=True), ActingExpert(), images=False)
    assert episode.success and simulation.time < max_steps(simulation) / 25
    assert np.abs(episode.chunks[-1, -1] - START_ACTION).max() < 0.05


def test_same_seed_gives_the_same_episode(simulation, short):
    first, _, again = (
        record_policy_episode(simulation, seed, Swaying(), images=False)
        for seed in (SEED, SEED + 1, SEED)
    )
    assert np.array_equal(first.chunks, again.chunks)
    assert np.array_equal(first.proprioception, again.proprioception)


def test_images_are_drawn_once_an_instant(simulation, monkeypatch):
    drawn = []
    render = simulation.render

    def note(size, cameras):
        drawn.extend((size[0], name) for name in cameras)
        return render(size, cameras)

    monkeypatch.setattr(simulation, 'render', note)
    simulation.reset(SEED)
    shared = StepImages(simulation)
    first = shared.render(None, ('cam_high',))
    every = shared.render()
    shared.render((16, 16), ('cam_high',))
    assert drawn == [(32, 'cam_high'), (32, 'cam_left_wrist'), (32, 'cam_right_wrist'),
                     (16, 'cam_high')]  # fmt: skip
    assert list(every) == ['cam_high', 'cam_left_wrist', 'cam_right_wrist']
    assert every['cam_high'] is first['cam_high']
    simulation.command(START_ACTION)
    for _ in range(10):
        simulation.step()
    assert not np.array_equal(shared.render()['cam_high'], first['cam_high'])
    assert len(drawn) == 7


# The folder


def test_every_episode_is_kept_and_the_file_says_what_happened(folder):
    manifest = DatasetManifest.read(folder)
    assert manifest.policy == 'swaying@1' and manifest.format_version == 2
    assert set(manifest.episodes) == {str(SEED), str(SEED + 1)} and manifest.failed == []
    for seed in (SEED, SEED + 1):
        content = np.load(episode_path(folder, seed))
        assert not content['success'] and len(content['chunks']) == manifest.episodes[str(seed)]
        assert len(content['offset_cam_high']) == len(content['chunks']) + 1


def test_going_on_tells_the_outcomes_again(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.glob('episode_*.npz')}
    results = []
    generate(folder, 2, SEED, camera_size=16, progress=results.append, actors=Swayings())
    assert [(one.success, one.kept) for one in results] == [(False, True)] * 2
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(
    'actors, message',
    [
        (Swayings('other@2'), r'policy differs .*\(swaying@1, not other@2\)'),
        (None, r'policy differs .*\(swaying@1, not the expert alone\)'),
    ],
)
def test_a_folder_holds_episodes_of_one_policy(folder, actors, message):
    with pytest.raises(HbvlaError, match=message):
        generate(folder, 3, SEED, camera_size=16, actors=actors)


def test_a_manifest_without_the_key_is_the_expert_s_and_is_added_to(tmp_path):
    generate(tmp_path, 1, SEED, camera_size=16)
    path = tmp_path / 'dataset.json'
    content = json.loads(path.read_text())
    assert content.pop('policy') == ''
    path.write_text(json.dumps(content))
    assert DatasetManifest.read(tmp_path).policy == ''
    with pytest.raises(HbvlaError, match=r'policy differs .*\(the expert alone, not swaying@1\)'):
        generate(tmp_path, 2, SEED, camera_size=16, actors=Swayings())
    grown = generate(tmp_path, 2, SEED, camera_size=16)
    assert len(grown.episodes) + len(grown.failed) == 2
