# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Which images and which pose make one observation, and what is counted on the way."""

from __future__ import annotations

import dataclasses
from array import array
from types import SimpleNamespace

import numpy as np
import pytest

from hbvla_ros.control.aligner import Aligner
from hbvla_ros.control.arm_streams import ArmStreams
from hbvla_ros.control.camera_streams import MUST_SHOW, content_digest, joints_in_view
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.errors import HbvlaError

PLAIN = RobotProfile.load('aloha_sim')
PERIOD = 0.04


def profile_with(latencies=(0.0, 0.0, 0.0), state_latency=0.0, **safety):
    return dataclasses.replace(
        PLAIN,
        arms=tuple(dataclasses.replace(a, state_latency=state_latency) for a in PLAIN.arms),
        cameras=tuple(
            dataclasses.replace(camera, latency=latency)
            for camera, latency in zip(PLAIN.cameras, latencies, strict=True)
        ),
        safety=dataclasses.replace(PLAIN.safety, **safety),
    )


class Robot:
    """Feeds an aligner: every picture is another one unless it is said to stay the same."""

    def __init__(self, profile=PLAIN):
        self.profile = profile
        self.arms = ArmStreams(profile)
        self.aligner = Aligner(profile, profile.cameras, self.arms)
        self.pose = PLAIN.start_pose.copy()
        self.now, self.pictures = 100.0, 0
        self.same = {}

    @property
    def counters(self):
        return self.aligner.cameras.counters

    def joints(self, stamp=None, arm=None):
        for index, profile in enumerate(self.profile.arms):
            if arm not in (None, index):
                continue
            raw = self.profile.split(self.pose)[index].copy()
            raw[-1] = profile.observed.from_ratio(raw[-1])
            message = SimpleNamespace(name=profile.names, position=raw.tolist())
            stamped = self.now if stamp is None else stamp
            self.arms.add(index, message, stamped, self.now, self.now)

    def image(self, number, stamp=None):
        camera = self.profile.cameras[number]
        self.pictures += 1
        data = self.same.get(camera.name, self.pictures.to_bytes(4, 'big'))
        stamped = self.now if stamp is None else stamp
        return self.aligner.image(camera, stamped, data, self.pictures)

    def turn(self, move=(), steps=1):
        """One period: joints, then images."""
        for _ in range(steps):
            self.now += PERIOD
            for joint, speed in move:
                self.pose[joint] += speed * PERIOD
            self.joints()
            for number in range(3):
                self.image(number)

    def observation(self, is_new=lambda stamp: True):
        return self.aligner.observation(self.now, self.now, False, is_new)


@pytest.fixture
def robot():
    return Robot()


def test_an_observation_of_fresh_images_and_the_pose_of_their_time(robot):
    robot.turn()
    robot.pose = robot.pose + 0.01
    robot.now += 0.02
    robot.joints()
    aligned, problem = robot.observation()
    assert problem == '' and aligned.stamp == pytest.approx(100.04)
    assert sorted(aligned.frames) == ['cam_high', 'cam_left_wrist', 'cam_right_wrist']
    np.testing.assert_allclose(aligned.pose, PLAIN.start_pose)
    assert [frame.payload for frame in aligned.frames.values()] == [1, 2, 3]


def test_nothing_new_is_no_problem(robot):
    robot.turn()
    assert robot.observation(lambda stamp: False) == (None, '')


def test_every_stream_has_its_own_latency():
    robot = Robot(profile_with((0.0, 0.03, 0.06), state_latency=0.05))
    robot.now = 200.0
    # Exposed at one instant, stamped when each camera had it ready; measured then as well.
    robot.joints(stamp=200.05)
    for number, latency in enumerate((0.0, 0.03, 0.06)):
        robot.image(number, stamp=200.0 + latency)
    aligned, problem = robot.observation()
    assert problem == '' and aligned.stamp == pytest.approx(200.0)
    for frame in aligned.frames.values():
        assert frame.stamp == pytest.approx(200.0)
    # Without latencies the same stamps are too far apart.
    plain = Robot()
    plain.now = 200.06
    plain.joints(stamp=200.05)
    for number, latency in enumerate((0.0, 0.03, 0.06)):
        plain.image(number, stamp=200.0 + latency)
    assert plain.observation()[1] == 'images are 0.060 s apart'


def test_the_reference_is_the_oldest_image(robot):
    robot.joints()
    for number, stamp in enumerate((100.0, 99.99, 99.985)):
        robot.image(number, stamp)
    assert robot.observation()[0].stamp == pytest.approx(99.985)


@pytest.mark.parametrize(
    'stamps, expected, counter, blamed',
    [
        ((100.0, 99.7, 100.0), 'image from cam_left_wrist is 0.300 s old', 'too_old', [1]),
        ((100.0, 100.3, 100.0), 'image from cam_left_wrist is -0.300 s old', 'too_old', [1]),
        ((100.0, 0.0, 100.0), 'image from cam_left_wrist has no stamp', 'too_old', [1]),
        ((100.0, 99.97, 99.96), 'images are 0.040 s apart', 'skewed', [1, 2]),
        ((100.0, 99.99, 99.985), '', 'skewed', []),
    ],
)
def test_images_of_other_times_are_refused_and_counted(robot, stamps, expected, counter, blamed):
    robot.joints()
    for number, stamp in enumerate(stamps):
        robot.image(number, stamp)
    for _ in range(5):  # however often it is asked
        _, problem = robot.observation()
        assert problem.startswith(expected) and bool(problem) == bool(expected)
    counts = [getattr(counters, counter) for counters in robot.counters.values()]
    assert counts == [int(number in blamed) for number in range(3)]


def test_a_camera_that_was_never_heard_is_named(robot):
    robot.joints()
    robot.image(0)
    assert robot.observation() == (None, 'no image from cam_left_wrist')


def test_what_is_too_old_is_lost_what_is_skewed_is_not(robot):
    robot.turn()
    robot.image(0, robot.now + 0.03)  # the next set begins to arrive
    assert 'apart' in robot.observation()[1]
    assert robot.aligner.lost(robot.now, robot.now, False) == ''
    robot.now += 0.26
    robot.joints()
    assert robot.aligner.lost(robot.now, robot.now, False).startswith('image from cam_left_wrist')
    robot.now += 0.3
    assert 'no joint states for 0.30 s' in robot.aligner.lost(robot.now, robot.now, False)


def test_messages_are_counted_by_what_became_of_them(robot):
    robot.turn(steps=3)
    robot.observation()
    robot.observation()
    robot.turn()
    for counters in robot.counters.values():
        assert counters.received == 4 and counters.used == 1 and counters.replaced == 2
        assert counters.too_old == counters.skewed == counters.out_of_order == 0
    for counters in robot.arms.counters.values():
        assert counters.received == 4 and counters.used == 1 and counters.undecodable == 0


def test_an_image_stamped_no_later_than_the_last_is_not_taken(robot):
    robot.turn()
    before = robot.observation()[0].frames['cam_high'].payload
    assert not robot.image(0, robot.now) and not robot.image(0, robot.now - 0.02)
    assert robot.observation()[0].frames['cam_high'].payload == before
    assert robot.counters['cam_high'].out_of_order == 2
    assert robot.image(0, robot.now + 0.001)


def test_a_camera_whose_clock_was_set_back_is_taken_again(robot):
    robot.turn()
    assert robot.image(0, robot.now - 10.0)
    assert robot.observation()[1] == 'image from cam_high is 10.000 s old'
    robot.turn()
    assert robot.observation()[0] is not None


def test_joint_states_are_counted_too(robot):
    robot.joints()
    robot.joints(stamp=99.9, arm=1)  # its clock went back: older poses are forgotten
    bad = SimpleNamespace(name=PLAIN.arms[0].names, position=[float('nan')] * 7)
    with pytest.raises(HbvlaError, match='left/joint_states: position is not finite'):
        robot.arms.add(0, bad, 100.0, 100.0, 100.0)
    for number in range(3):
        robot.image(number)
    assert 'right/joint_states is stamped 0.100 s before' in robot.observation()[1]
    robot.now += 0.3
    assert robot.observation()[1] == 'no joint states for 0.30 s from left/joint_states'
    left, right = (robot.arms.counters[arm.name] for arm in PLAIN.arms)
    assert (left.received, left.undecodable, left.out_of_order) == (2, 1, 0)
    assert (right.received, right.undecodable, right.out_of_order) == (2, 0, 1)
    assert (left.skewed, right.skewed) == (0, 1) and (left.too_old, right.too_old) == (1, 1)


def test_joint_states_without_a_stamp_stay_without_whatever_their_latency():
    robot = Robot(profile_with(state_latency=0.05))
    robot.joints(stamp=0.0)
    for number in range(3):
        robot.image(number)
    assert 'left/joint_states has no stamps' in robot.observation()[1]


def test_an_arm_that_was_never_heard_is_named(robot):
    robot.joints(arm=0)
    for number in range(3):
        robot.image(number)
    assert robot.observation() == (None, 'no joint states from right/joint_states')


FROZEN = 0.3
MOVE = [(0, 1.0), (7, 1.0)]  # both waists, 1 rad/s


def frozen_robot(**same):
    robot = Robot(profile_with(frozen_timeout=FROZEN))
    robot.turn(MOVE, 3)
    robot.same = {name: b'still' for name, still in same.items() if still}
    return robot


def test_a_camera_that_repeats_its_picture_while_the_arms_move_is_frozen():
    robot = frozen_robot(cam_high=True)
    # It must show that the arms have moved, and has frozen_timeout to do so.
    allowed = MUST_SHOW / 1.0 + FROZEN
    robot.turn(MOVE, int(allowed / PERIOD))
    assert robot.observation()[1] == '' and not robot.aligner.cameras.frozen
    robot.turn(MOVE, 3)
    aligned, problem = robot.observation()
    assert aligned is None
    assert problem == 'cam_high is frozen: the same image for 0.4 s while the arms moved'
    assert list(robot.aligner.cameras.frozen) == ['cam_high']
    assert robot.counters['cam_high'].frozen > 0 and robot.counters['cam_left_wrist'].frozen == 0
    # The arms hold now; that is no sign of life of the camera.
    robot.turn(steps=50)
    assert 'cam_high is frozen' in robot.aligner.lost(robot.now, robot.now, False)
    robot.same = {}
    robot.turn()
    assert robot.observation()[1] == '' and not robot.aligner.cameras.frozen


def test_a_still_scene_is_no_frozen_camera():
    robot = frozen_robot(cam_high=True, cam_left_wrist=True, cam_right_wrist=True)
    # A driver's noise, and a gripper that closes on nothing in view.
    for turn in range(500):
        robot.turn([(6, -0.05), (3, 0.3 * (-1) ** turn)])
    assert robot.observation()[1] == ''


def test_the_first_picture_after_a_rest_may_come_late():
    robot = frozen_robot(cam_high=True)
    robot.turn(steps=100)  # at rest for 4 s
    robot.turn(MOVE, 3)  # the camera lags behind the joints
    assert robot.observation()[1] == ''
    robot.same = {}
    robot.turn(MOVE, 20)
    assert robot.observation()[1] == ''


@pytest.mark.parametrize(
    'joint, frozen',
    [(0, ['cam_high', 'cam_left_wrist']), (8, ['cam_high', 'cam_right_wrist']), (6, [])],
)
def test_a_wrist_camera_sees_its_own_arm_move(joint, frozen):
    robot = frozen_robot(cam_high=True, cam_left_wrist=True, cam_right_wrist=True)
    robot.turn([(joint, 1.0)], 20)
    assert sorted(robot.aligner.cameras.frozen) == frozen


def test_joints_in_view_go_by_the_names_of_arms():
    def arms_of(name):
        mask = joints_in_view(PLAIN, name)
        assert not mask[[6, 13]].any()
        return mask[0], mask[7]

    assert arms_of('cam_left_wrist') == (True, False)
    assert arms_of('wrist-right') == (False, True)
    assert arms_of('cam_high') == arms_of('cleft_cam') == (True, True)


def test_digests_tell_pictures_apart():
    random = np.random.default_rng(0)
    raw = random.integers(0, 256, 640 * 480 * 3, dtype=np.uint8)
    noisy = raw + random.integers(0, 2, raw.size, dtype=np.uint8)
    assert content_digest(raw) == content_digest(array('B', raw.tobytes()))
    assert content_digest(raw) != content_digest(noisy)
    assert content_digest(b'') != content_digest(b'\0') != content_digest(b'\0\0')
    # All columns and colours are sampled, so that an arm at any side of the picture counts.
    rows = np.arange(640 * 480 * 3)[::17] % 1920
    assert len(set(rows.tolist())) == 1920


def test_forgotten_images_are_gone_and_the_counts_stay(robot):
    robot.turn(steps=2)
    robot.aligner.cameras.clear()
    assert robot.observation()[1] == 'no image from cam_high'
    assert set(robot.aligner.cameras.ages(robot.now).values()) == {float('inf')}
    assert robot.counters['cam_high'].received == 2
