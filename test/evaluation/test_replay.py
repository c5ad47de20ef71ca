# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A bag against a policy: the same every time, whatever is injected, and hold when in doubt."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import yaml

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.safety import SafetyStage
from hbvla_ros.data import ActionChunk
from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.latency_traces import parse_latency, parse_missing, parse_spike
from hbvla_ros.evaluation.replay import ReplaySettings
from hbvla_ros.evaluation.replay_run import ReplayRequest, replay_bag
from hbvla_ros.evaluation.replay_summary import kind_of
from hbvla_ros.recordings.degradations import parse_degradation
from hbvla_ros.recordings.fixture import FixtureOptions, Motion, write_fixture
from hbvla_ros.resources import share_path
from hbvla_ros.vla.platform import ALOHA

PROFILE = RobotProfile.load('aloha_sim')
CAMERAS = tuple(camera.name for camera in PROFILE.cameras)
ROBOTS = sorted(path.stem for path in share_path('config', 'robots').glob('*.yaml'))
# Reason of a hold without the joint states of the left arm.
LOST = 'no joint states for # s from left/joint_states'
START, ROWS, STEP = 1_700_000_000.0, 10, 0.04
# The arms hold so long, s, after the last message at the latest: time-out and a control period.
SOON = PROFILE.safety.joint_state_timeout + 0.05


class Recorder:
    """Commands what was recorded, a little beside it: a perfect policy with a known error."""

    checkpoint = 'recorder-0000'

    def __init__(self, beside=0.0, start=START, robot='aloha_sim', profile=PROFILE):
        cameras, width = tuple(one.name for one in profile.cameras), len(profile.action_names)
        self.platform = dataclasses.replace(
            ALOHA, robot=robot, cameras=cameras, chunk=ROWS, action_dim=width, proprio_dim=width
        )
        self._motion, self._beside, self._start = Motion(profile, 0), beside, start
        self._profile, self.observations = profile, []

    def act(self, observation):
        self.observations.append(observation)
        due = observation.stamp - self._start + STEP * np.arange(ROWS)
        rows = np.array([self._motion.at(time) for time in due])
        rows[:, ~self._profile.is_gripper] += self._beside * np.arange(ROWS)[:, None]
        rows = self._profile.pose_to_action(rows)
        return ActionChunk(rows, observation.stamp, STEP, observation.stamp,
                           observation.instruction, self.checkpoint)  # fmt: skip

    def warmup(self):
        pass


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp('bags') / 'bag'
    write_fixture(path, PROFILE, FixtureOptions(seconds=2.0))
    return path


@pytest.fixture(scope='module')
def simulated(tmp_path_factory):
    path = tmp_path_factory.mktemp('bags') / 'simulated'
    write_fixture(path, PROFILE, FixtureOptions(seconds=2.0, simulated=True))
    return path


def replay(
    bag, *faults, policy=None, latency='0.06', events=(), profile=PROFILE, against='commands',
    **settings,
):  # fmt: skip
    request = ReplayRequest(
        bag, parse_latency(latency, 0), events, [parse_degradation(text) for text in faults],
        ReplaySettings(**settings), against,
    )  # fmt: skip
    result = replay_bag(request, policy or Recorder(), profile)
    check_commands(result, profile)
    return result


def check_commands(result, profile):
    """Whatever happens: finite, inside the limits, capped, in order of time."""
    ticks, stage = result.replayed.ticks, SafetyStage.of(profile)
    sent = np.array([tick.command for tick in ticks if tick.command is not None])
    assert np.isfinite(sent).all()
    assert (sent >= stage.lower - 1e-9).all() and (sent <= stage.upper + 1e-9).all()
    steps = np.diff(sent, axis=0)
    assert (np.abs(steps) <= stage.velocity * stage.period + 1e-9).all()
    changes = np.abs(np.diff(steps, axis=0))
    assert (changes <= stage.acceleration * stage.period**2 + 1e-9).all()
    elapsed = [tick.instant.elapsed for tick in ticks]
    assert (np.diff(elapsed) > 0.5 * stage.period).all()
    commands = result.report['commands']
    keys = ('not_finite', 'outside_limits', 'steps_above_limit')
    assert [commands[key] for key in keys] == [0, 0, 0]


@pytest.fixture(scope='module')
def plain(bag):
    """The replay without anything injected."""
    return replay(bag)


def held(result, start, stop):
    """Reasons without numbers between two times, each once; '' while a target was followed."""
    ticks = result.replayed.ticks
    return {kind_of(tick.holding) for tick in ticks if start <= tick.instant.elapsed < stop}


def test_the_same_again(bag, plain):
    first, second = plain, replay(bag)
    assert first.report == second.report
    assert all(len(digest) == 64 for digest in first.report['digests'].values())
    other = replay(bag, latency='0.25')
    assert other.report['digests']['frames'] != first.report['digests']['frames']
    beside = replay(bag, policy=Recorder(0.001))
    assert beside.report['digests']['frames'] == first.report['digests']['frames']
    assert beside.report['digests']['chunks'] != first.report['digests']['chunks']


def test_a_perfect_policy_has_no_error_and_is_followed(plain):
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


def test_the_error_is_measured_row_by_row(bag):
    error = replay(bag, policy=Recorder(0.01)).report['open_loop_error']
    np.testing.assert_allclose(error['by_row_rad'], 0.01 * np.arange(ROWS), atol=2e-3)
    assert error['joints_rad'] == pytest.approx(0.045, abs=4e-3)
    assert error['by_joint']['right waist']['worst'] == pytest.approx(0.09, abs=5e-3)
    assert error['by_joint']['right waist']['unit'] == 'rad'
    assert error['by_joint']['right gripper']['unit'] == 'ratio'


def test_against_measured_poses_and_nothing(bag):
    poses = replay(bag, against='poses').report['open_loop_error']
    # The arms are 0.04 s behind their commands.
    assert 5e-3 < poses['joints_rad'] < 0.05 and poses['against'] == 'poses'
    assert replay(bag, against='nothing').report['open_loop_error'] is None


def test_observations_are_those_of_the_bag(bag):
    policy = Recorder()
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


def test_a_chunk_is_entered_at_the_row_that_is_due(bag):
    for latency, least in (('0', 0.2), ('0.06', 1.7), ('0.12', 3.2)):
        past = replay(bag, latency=latency).report['inferences']['rows_past_at_entry']
        assert least <= past['median'] <= least + 0.8, latency


def test_simulated_time(simulated):
    first = replay(simulated, policy=Recorder(start=1.0))
    assert first.report == replay(simulated, policy=Recorder(start=1.0)).report
    assert first.report['bag']['simulated_time']
    assert first.report['open_loop_error']['joints_rad'] < 1e-3
    assert held(first, 0.3, 1.9) == {''}
    # Turns of the loop fall on the clock's 10 ms.
    times = np.array([tick.instant.now for tick in first.replayed.ticks])
    np.testing.assert_allclose(np.diff(times[:40]), 0.04, atol=1e-6)
    assert first.report['hold_after_last_message_s'] <= SOON + 0.05


@pytest.mark.parametrize('robot', ROBOTS)
def test_every_robot(tmp_path, robot):
    """Its gripper units, limits, adapters and raw images, with a spike in the middle."""
    profile = RobotProfile.load(robot)
    options = FixtureOptions(seconds=1.2, size=(32, 24))
    write_fixture(tmp_path / 'bag', profile, options)
    policy = Recorder(robot=profile.robot, profile=profile)
    spike = [parse_spike('0.7@0.4')]
    report = replay(tmp_path / 'bag', policy=policy, profile=profile, events=spike).report
    assert report['open_loop_error']['joints_rad'] < 2e-3
    assert report['commands']['running'] >= 0.4 * profile.control_rate
    grippers = report['open_loop_error']['grippers']
    actions = [arm.gripper_adapter == 'parallel_gripper_action' for arm in profile.arms]
    # The goals of gripper actions are in no bag; other commands of grippers come in steps.
    assert grippers is None if all(actions) else grippers < 0.05


def test_the_arms_may_be_where_they_were_recorded(bag):
    """A policy that goes its own way is beyond the lag that a real robot would stop for."""
    profile = dataclasses.replace(
        PROFILE, safety=dataclasses.replace(PROFILE.safety, lag_stop=0.2, lag_time=0.2)
    )
    away = Recorder(0.1)
    assert replay(bag, policy=away, profile=profile).report['stop'] == ''
    stopped = replay(bag, policy=Recorder(0.1), profile=profile, arms='recorded').report
    assert 'command' in stopped['stop']
    assert stopped['holds'][-1]['reason'] == f'stopped: {stopped["stop"]}'


# Latency


class Wavering(Recorder):
    """Beside what was recorded by 0.02 rad to one side and then to the other, in turn."""

    def act(self, observation):
        chunk = super().act(observation)
        side = 0.02 * (-1) ** len(self.observations)
        return dataclasses.replace(
            chunk, actions=chunk.actions + side * ~self._profile.is_gripper[None]
        )


def test_chunks_are_averaged_if_so_asked(bag):
    """What two chunks have wrong to opposite sides is less wrong in their mean."""
    reports = {}
    for weight in (None, 0.0, 0.01):
        settings = {'replan_fraction': 0.2, 'temporal_ensemble': weight}
        result = replay(bag, policy=Wavering(), **settings)
        assert result.report['settings']['temporal_ensemble'] == weight
        assert result.report['inferences']['accepted'] > 15
        sent = [joint['sent'] for joint in result.report['open_loop_error']['by_joint'].values()]
        reports[weight] = np.mean(sent), result.report['digests']
    assert reports[0.0][0] < 0.6 * reports[None][0]
    assert reports[0.0][1]['chunks'] == reports[None][1]['chunks']
    assert reports[0.0][1]['commands'] != reports[0.01][1]['commands']


def test_a_spike_ends_the_chunk_and_then_holds(bag):
    result = replay(bag, events=[parse_spike('0.9@0.5')])
    slow = next(one for one in result.replayed.inferences if one.reply.seconds == 0.9)
    start = slow.started.elapsed
    # The present chunk is half drained: its rest is executed, then nothing is known any more.
    assert held(result, 0.2, start + 0.1) == {''}
    assert held(result, start + 0.3, start + 0.9) == {'inference under way'}
    assert slow.outcome.startswith('refused: all rows are past')
    assert held(result, start + 1.1, 1.9) == {''}


def test_a_missing_reply_costs_its_latency_only(bag):
    result = replay(bag, events=[parse_missing('0.5')])
    assert result.report['inferences']['outcomes']['lost: no reply'] == 1
    assert held(result, 0.2, 1.9) == {''}


def test_an_inference_that_never_ends(bag):
    result = replay(bag, events=[parse_spike('inf@0.5')])
    assert result.report['inferences']['outcomes']['unfinished'] == 1
    assert result.replayed.inferences[-1].outcome == 'unfinished'
    assert held(result, 1.1, 2.0) == {'inference under way'}
    last = result.report['inferences']['list'][-1]
    assert last['latency_s'] is None and last['observation']


def test_a_chunk_after_the_deadline_is_dropped(bag):
    result = replay(bag, latency='0.2', inference_deadline=0.1)
    assert set(result.report['inferences']['outcomes']) == {
        'dropped: later than the deadline of # s'
    }
    assert held(result, 0.4, 1.9) == {'dropped: later than the deadline of # s'}


def test_too_slow_for_its_chunks(bag):
    result = replay(bag, latency='0.6')
    outcomes = result.report['inferences']['outcomes']
    assert 'accepted' not in outcomes and outcomes['refused: all rows are past, the last by # s']
    assert '' not in held(result, 0.0, 9.0)


# Faults, each with the outcome that docs/replay.md states


def test_dropped_camera(bag):
    result = replay(bag, 'drop-camera:cam_high@1.0')
    assert held(result, 0.2, 1.0) == {''}
    assert held(result, 1.5, 2.0) == {'image from cam_high is # s old'}
    late = [one for one in result.replayed.inferences if one.started.elapsed > 1.0]
    assert all(one.stamp - START < 1.0 for one in late)


def test_dropped_camera_with_hold_on_loss(bag):
    result = replay(bag, 'drop-camera:cam_high@1.0', hold_on_loss=True)
    ticks = [tick for tick in result.replayed.ticks if tick.holding and tick.instant.elapsed > 0.3]
    # The last image is from 0.96 s.
    assert ticks[0].instant.elapsed <= 0.96 + PROFILE.safety.image_timeout + 2 / 25
    assert ticks[0].holding.startswith('image from cam_high is ')


def test_dropped_camera_that_comes_back(bag):
    result = replay(bag, 'drop-camera:cam_high@0.6-1.2')
    assert '' not in held(result, 1.1, 1.2) and held(result, 1.45, 1.9) == {''}


def test_frozen_camera(bag, tmp_path):
    content = yaml.safe_load(share_path('config', 'robots').joinpath('aloha_sim.yaml').read_text())
    content['safety']['frozen_timeout'] = 3600.0
    (tmp_path / 'lenient.yaml').write_text(yaml.safe_dump(content))
    lenient = RobotProfile.load(tmp_path / 'lenient.yaml')
    result = replay(bag, 'freeze-camera:cam_high@0.8')
    assert held(result, 1.7, 2.0) == {
        'cam_high is frozen: the same image for # s while the arms moved'
    }
    assert result.report['streams']['cam_high']['frozen'] > 0
    assert held(replay(bag, 'freeze-camera:cam_high@0.8', profile=lenient), 0.2, 1.9) == {''}


def test_wrong_encoding(bag):
    result = replay(bag, 'wrong-encoding:cam_left_wrist@1.0')
    failures = [one for one in result.replayed.inferences if one.outcome.startswith('failed: ')]
    assert failures and all('camera cam_left_wrist: ' in one.outcome for one in failures)
    assert not any(one.observation for one in failures)
    (reason,) = held(result, 1.5, 2.0)
    assert 'cam_left_wrist' in reason


def test_wrong_encoding_of_raw_images(tmp_path):
    profile = dataclasses.replace(
        PROFILE, cameras=tuple(dataclasses.replace(one, type='raw') for one in PROFILE.cameras)
    )
    write_fixture(tmp_path / 'raw', profile, FixtureOptions(seconds=0.5))
    outcomes = replay(tmp_path / 'raw', 'wrong-encoding').report['inferences']['outcomes']
    (reason,) = outcomes
    assert "image encoding '32FC1' is not one of rgb8" in reason
    assert set(replay(tmp_path / 'raw').report['inferences']['outcomes']) == {'accepted'}


def test_dropped_joints(bag):
    result = replay(bag, 'drop-joints:left@1.0')
    holding = [tick for tick in result.replayed.ticks if tick.holding and tick.instant.elapsed > 1]
    assert holding[0].instant.elapsed <= 1.0 + SOON
    assert held(result, 1.0 + SOON, 9.0) == {LOST}


def test_reordered_joints_change_nothing(bag, plain):
    assert replay(bag, 'reorder-joints').report['digests'] == plain.report['digests']


def test_renamed_joint(bag):
    result = replay(bag, 'rename-joint:left_elbow@1.0')
    assert held(result, 1.0 + SOON, 9.0) == {LOST}
    assert result.report['streams']['left']['undecodable'] == 50


def test_joint_that_is_no_number(bag):
    result = replay(bag, 'nan-joint:left_elbow@0.8-1.3')
    assert held(result, 0.8 + SOON, 1.3) == {LOST}
    assert held(result, 1.5, 1.9) == {''}


def test_clock_that_is_set_back(bag):
    result = replay(bag, 'clock-step:-0.1@1.0')
    assert result.report['clock_jumps'] == 1
    # What was executed was due by the old clock; the next chunk goes by the new one.
    assert held(result, 1.02, 1.06) == {'inference under way'}
    assert held(result, 1.1, 1.9) == {''}
    # Images count again when their stamps are newer than those before.
    assert result.report['streams']['cam_high']['out of order'] == 2


def test_clock_that_is_set_forward(bag):
    result = replay(bag, 'clock-step:0.5@1.0')
    assert '' not in held(result, 1.02, 1.07) and held(result, 1.35, 1.9) == {''}


def test_duplicates_change_nothing(bag, plain):
    twice, once = replay(bag, 'duplicate').report, plain.report
    assert twice['digests'] == once['digests']
    assert twice['streams']['cam_high']['out of order'] == 50
    assert twice['bag']['messages'] > 1.5 * once['bag']['messages']


def test_stamps_of_zero(bag):
    result = replay(bag, 'zero-stamps:cam_high@1.0')
    assert held(result, 1.5, 2.0) == {
        'image from cam_high has no stamp: the driver must fill in header.stamp'
    }
    result = replay(bag, 'zero-stamps:left@1.0')
    assert held(result, 1.5, 2.0) == {
        'left/joint_states has no stamps: the driver must fill in header.stamp'
    }


def test_images_out_of_order(bag):
    """The later of each two is used, the earlier one after it never."""
    result = replay(bag, 'out-of-order:cam_high')
    stamps = [one.stamps['cam_high'] for one in result.replayed.inferences]
    assert stamps == sorted(stamps)
    assert result.report['streams']['cam_high']['out of order'] == 25
    assert held(result, 0.3, 1.9) == {''}


def test_joint_states_out_of_order(bag):
    result = replay(bag, 'out-of-order:left')
    assert result.report['streams']['left']['out of order'] >= 49
    assert held(result, 0.3, 1.9) == {''}


# What cannot be replayed


def test_bags_that_make_no_observation(tmp_path, bag):
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
        replay(bag, policy=Recorder(robot='other'))


def test_bags_without_commands(tmp_path):
    from hbvla_ros.recordings.bag_writer import BagWriter

    with BagWriter(tmp_path / 'bag', PROFILE) as writer:
        writer.instruction('go', 100.0)
        for turn in range(30):
            writer.joint_states(PROFILE.start_pose, 100.0 + 0.02 * turn)
            for camera in CAMERAS:
                picture = np.full((8, 8, 3), turn, np.uint8)
                writer.raw_image(camera, picture, 100.0 + 0.02 * turn)
    with pytest.raises(HbvlaError, match=r'no commands on /left/commands .* .--against poses'):
        replay(tmp_path / 'bag', policy=Recorder(start=100.0))
    result = replay(tmp_path / 'bag', policy=Recorder(start=100.0), against='poses')
    assert result.report['open_loop_error']['rows_compared'] > 0
