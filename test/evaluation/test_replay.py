# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A bag against a policy: the same every time, whatever is injected, and hold when in doubt."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.latency_traces import parse_missing, parse_spike
from hbvla_ros.recordings.fixture import FixtureOptions, Motion, write_fixture
from hbvla_ros.resources import share_path

PROFILE = RobotProfile.load('aloha_sim')
CAMERAS = tuple(camera.name for camera in PROFILE.cameras)
ROBOTS = sorted(path.stem for path in share_path('config', 'robots').glob('*.yaml'))
START, ROWS = 1_700_000_000.0, 10
# The arms hold so long, s, after the last message at the latest: time-out and a control period.
SOON = PROFILE.safety.joint_state_timeout + 0.05


@pytest.fixture(scope='module')
def simulated(tmp_path_factory):
    path = tmp_path_factory.mktemp('bags') / 'simulated'
    write_fixture(path, PROFILE, FixtureOptions(seconds=2.0, simulated=True))
    return path


def test_the_same_again(bag, plain, replay, recorder):
    first, second = plain, replay(bag)
    assert first.report == second.report
    assert all(len(digest) == 64 for digest in first.report['digests'].values())
    other = replay(bag, latency='0.25')
    assert other.report['digests']['frames'] != first.report['digests']['frames']
    beside = replay(bag, policy=recorder(0.001))
    assert beside.report['digests']['frames'] == first.report['digests']['frames']
    assert beside.report['digests']['chunks'] != first.report['digests']['chunks']


def test_a_perfect_policy_has_no_error_and_is_followed(plain, held):
    result, report = plain, plain.report
    assert report['inferences']['outcomes'] == {'accepted': report['inferences']['started']}
    # Due after half of 0.36 s, and the newest image is then 0.02 s old: one every 0.16 s.
    assert 12 <= report['inferences']['started'] <= 14
    error = report['open_loop_error']
    # The recorded command is interpolated between two of 25 Hz.
    assert error['joints_rad'] < 1e-3 and error['by_row_rad'][-1] < 2e-3
    assert error['by_joint']['left elbow']['sent'] < 5e-3
    # Images of the beginning were there after 16 ms, their chunk 60 ms later.
    assert held(result, 0.2, 1.9) == {''}
    assert report['hold_after_last_message_s'] <= SOON


def test_the_error_is_measured_row_by_row(bag, replay, recorder):
    error = replay(bag, policy=recorder(0.01)).report['open_loop_error']
    np.testing.assert_allclose(error['by_row_rad'], 0.01 * np.arange(ROWS), atol=2e-3)
    assert error['joints_rad'] == pytest.approx(0.045, abs=4e-3)
    assert error['by_joint']['right waist']['worst'] == pytest.approx(0.09, abs=5e-3)
    assert error['by_joint']['right waist']['unit'] == 'rad'
    assert error['by_joint']['right gripper']['unit'] == 'ratio'


def test_against_measured_poses_and_nothing(bag, replay):
    poses = replay(bag, against='poses').report['open_loop_error']
    # The arms are 0.04 s behind their commands.
    assert 5e-3 < poses['joints_rad'] < 0.05 and poses['against'] == 'poses'
    assert replay(bag, against='nothing').report['open_loop_error'] is None


def test_observations_are_those_of_the_bag(bag, replay, recorder):
    policy = recorder()
    result = replay(bag, policy=policy)
    motion = Motion(PROFILE, 0)
    for seen, inference in zip(policy.observations, result.replayed.inferences, strict=True):
        assert set(seen.images) == set(CAMERAS) and seen.stamp == inference.stamp
        assert all(image.shape == (48, 64, 3) for image in seen.images.values())
        measured = motion.at(seen.stamp - START - 0.04)
        assert np.abs(seen.proprioception - measured).max() < 0.02
        assert seen.instruction == 'put the red cube into the bucket'
        age = inference.started.now - seen.stamp
        assert 0.0 < age < (0.05 if inference.started.elapsed < 1.95 else 0.25)


def test_a_chunk_is_entered_at_the_row_that_is_due(bag, replay):
    for latency, least in (('0', 0.2), ('0.06', 1.7), ('0.12', 3.2)):
        past = replay(bag, latency=latency).report['inferences']['rows_past_at_entry']
        assert least <= past['median'] <= least + 0.8, latency


def test_simulated_time(simulated, replay, held, recorder):
    first = replay(simulated, policy=recorder(start=1.0))
    assert first.report == replay(simulated, policy=recorder(start=1.0)).report
    assert first.report['bag']['simulated_time']
    assert first.report['open_loop_error']['joints_rad'] < 1e-3
    assert held(first, 0.3, 1.9) == {''}
    # Turns of the loop fall on the clock's 10 ms.
    times = np.array([tick.instant.now for tick in first.replayed.ticks])
    np.testing.assert_allclose(np.diff(times[:40]), 0.04, atol=1e-6)
    assert first.report['hold_after_last_message_s'] <= SOON + 0.05


@pytest.mark.parametrize('robot', ROBOTS)
def test_every_robot(tmp_path, robot, replay, recorder):
    """Its gripper units, limits, adapters and raw images, with a spike in the middle."""
    profile = RobotProfile.load(robot)
    options = FixtureOptions(seconds=1.2, size=(32, 24))
    write_fixture(tmp_path / 'bag', profile, options)
    policy = recorder(robot=profile.robot, profile=profile)
    spike = [parse_spike('0.7@0.4')]
    report = replay(tmp_path / 'bag', policy=policy, profile=profile, events=spike).report
    assert report['open_loop_error']['joints_rad'] < 2e-3
    assert report['commands']['running'] >= 0.4 * profile.control_rate
    grippers = report['open_loop_error']['grippers']
    actions = [arm.gripper_adapter == 'parallel_gripper_action' for arm in profile.arms]
    # The goals of gripper actions are in no bag; other commands of grippers come in steps.
    assert grippers is None if all(actions) else grippers < 0.05


def test_the_arms_may_be_where_they_were_recorded(bag, replay, recorder):
    """A policy that goes its own way is beyond the lag that a real robot would stop for."""
    profile = dataclasses.replace(
        PROFILE, safety=dataclasses.replace(PROFILE.safety, lag_stop=0.2, lag_time=0.2)
    )
    away = recorder(0.1)
    assert replay(bag, policy=away, profile=profile).report['stop'] == ''
    stopped = replay(bag, policy=recorder(0.1), profile=profile, arms='recorded').report
    assert 'command' in stopped['stop']
    assert stopped['holds'][-1]['reason'] == f'stopped: {stopped["stop"]}'


# Latency


@pytest.fixture
def wavering(recorder):
    """The class of a policy that errs to either side in turn."""

    class Wavering(recorder):
        """Beside what was recorded by 0.02 rad to one side and then to the other, in turn."""

        def act(self, observation):
            chunk = super().act(observation)
            side = 0.02 * (-1) ** len(self.observations)
            return dataclasses.replace(
                chunk, actions=chunk.actions + side * ~self._profile.is_gripper[None]
            )

    return Wavering


def test_chunks_are_averaged_if_so_asked(bag, replay, wavering):
    """What two chunks have wrong to opposite sides is less wrong in their mean."""
    reports = {}
    for weight in (None, 0.0, 0.01):
        settings = {'replan_fraction': 0.2, 'temporal_ensemble': weight}
        result = replay(bag, policy=wavering(), **settings)
        assert result.report['settings']['temporal_ensemble'] == weight
        assert result.report['inferences']['accepted'] > 15
        sent = [joint['sent'] for joint in result.report['open_loop_error']['by_joint'].values()]
        reports[weight] = np.mean(sent), result.report['digests']
    assert reports[0.0][0] < 0.6 * reports[None][0]
    assert reports[0.0][1]['chunks'] == reports[None][1]['chunks']
    assert reports[0.0][1]['commands'] != reports[0.01][1]['commands']


def test_a_spike_ends_the_chunk_and_then_holds(bag, replay, held):
    result = replay(bag, events=[parse_spike('0.9@0.5')])
    slow = next(one for one in result.replayed.inferences if one.reply.seconds == 0.9)
    start = slow.started.elapsed
    # The present chunk is half drained: its rest is executed, then nothing is known any more.
    assert held(result, 0.2, start + 0.1) == {''}
    assert held(result, start + 0.3, start + 0.9) == {'inference under way'}
    assert slow.outcome.startswith('refused: all rows are past')
    assert held(result, start + 1.1, 1.9) == {''}


def test_a_missing_reply_costs_its_latency_only(bag, replay, held):
    result = replay(bag, events=[parse_missing('0.5')])
    assert result.report['inferences']['outcomes']['lost: no reply'] == 1
    assert held(result, 0.2, 1.9) == {''}


def test_an_inference_that_never_ends(bag, replay, held):
    result = replay(bag, events=[parse_spike('inf@0.5')])
    assert result.report['inferences']['outcomes']['unfinished'] == 1
    assert result.replayed.inferences[-1].outcome == 'unfinished'
    assert held(result, 1.1, 2.0) == {'inference under way'}
    last = result.report['inferences']['list'][-1]
    assert last['latency_s'] is None and last['observation']


def test_a_chunk_after_the_deadline_is_dropped(bag, replay, held):
    result = replay(bag, latency='0.2', inference_deadline=0.1)
    assert set(result.report['inferences']['outcomes']) == {
        'dropped: later than the deadline of # s'
    }
    assert held(result, 0.4, 1.9) == {'dropped: later than the deadline of # s'}


def test_too_slow_for_its_chunks(bag, replay, held):
    result = replay(bag, latency='0.6')
    outcomes = result.report['inferences']['outcomes']
    assert 'accepted' not in outcomes and outcomes['refused: all rows are past, the last by # s']
    assert '' not in held(result, 0.0, 9.0)


# What cannot be replayed


def test_bags_that_make_no_observation(tmp_path, bag, replay, recorder):
    from hbvla_ros.recordings.bag_writer import BagWriter

    with BagWriter(tmp_path / 'still', PROFILE) as writer:
        for turn in range(5):
            writer.joint_states(PROFILE.start_pose, 100.0 + 0.02 * turn)
            writer.commands(PROFILE.start_pose, 100.0 + 0.02 * turn)
            for camera in CAMERAS:
                writer.raw_image(camera, np.zeros((8, 8, 3), np.uint8), 90.0 + turn)
    with pytest.raises(HbvlaError, match='has no instruction topic; give it with --instruction'):
        replay(tmp_path / 'still')
    with pytest.raises(HbvlaError, match='holds nothing that makes an observation; when it ended'):
        replay(tmp_path / 'still', instruction='go')
    with pytest.raises(HbvlaError, match="checkpoint recorder-0000 is for robot 'other'"):
        replay(bag, policy=recorder(robot='other'))


def test_bags_without_commands(tmp_path, replay, recorder):
    from hbvla_ros.recordings.bag_writer import BagWriter

    with BagWriter(tmp_path / 'bag', PROFILE) as writer:
        writer.instruction('go', 100.0)
        for turn in range(30):
            writer.joint_states(PROFILE.start_pose, 100.0 + 0.02 * turn)
            for camera in CAMERAS:
                picture = np.full((8, 8, 3), turn, np.uint8)
                writer.raw_image(camera, picture, 100.0 + 0.02 * turn)
    with pytest.raises(HbvlaError, match=r'no commands on /left/commands .* .--against poses'):
        replay(tmp_path / 'bag', policy=recorder(start=100.0))
    result = replay(tmp_path / 'bag', policy=recorder(start=100.0), against='poses')
    assert result.report['open_loop_error']['rows_compared'] > 0
