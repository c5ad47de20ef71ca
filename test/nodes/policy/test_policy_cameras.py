# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What the policy node makes of cameras that freeze, fall silent or send nonsense."""

from __future__ import annotations

from array import array

import cv2
import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CompressedImage, Image

from hbvla_ros.nodes.conversions import raw_image, to_seconds
from hbvla_ros.nodes.policy_node import PolicyNode
from hbvla_ros.resources import share_path

SLOW = [0, 7]  # the waists


def live_pictures(robot, frozen):
    """Pictures that change all the time, but for the cameras in ``frozen``."""
    return lambda name: np.full((48, 64, 3), 0 if name in frozen else robot.turns % 250, np.uint8)


def move_arms(robot):
    def turn():
        robot.pose = robot.pose + np.isin(np.arange(14), SLOW) * 0.02

    return robot.create_timer(0.02, turn)


def test_a_frozen_camera_stops_inference_and_is_named(robot, start, policy, instruct, wait, errors):
    frozen = set()
    robot.picture = live_pictures(robot, frozen)
    start()
    motion = move_arms(robot)
    instruct('go')
    assert wait(robot.real_chunks)
    frozen.add('cam_left_wrist')
    expected = 'cam_left_wrist is frozen: the same image under new stamps while the arms move'
    assert wait(lambda: expected in errors())
    count = len(policy.observations)
    robot.live(0.5)
    assert len(policy.observations) <= count + 1
    count = len(policy.observations)
    motion.cancel()  # the arms hold in the end; it stays frozen
    robot.live(0.5)
    assert len(policy.observations) == count
    assert robot.report('policy_node').level == DiagnosticStatus.ERROR
    assert int(robot.report('policy_node', 'cam_left_wrist frozen')) > 0
    assert robot.report('policy_node', 'cam_high frozen') == '0'
    frozen.clear()
    assert wait(lambda: len(policy.observations) > count)
    assert wait(lambda: robot.report('policy_node').level == DiagnosticStatus.OK)


def test_a_robot_at_rest_has_no_frozen_camera(robot, start, policy, instruct, wait, errors):
    start()
    instruct('go')
    assert wait(lambda: int(robot.report('policy_node', 'cam_high received') or 0) > 40)
    count = len(policy.observations)
    assert wait(lambda: len(policy.observations) > count)
    assert not errors() and robot.report('policy_node', 'cam_high frozen') == '0'


def test_a_lost_camera_lets_the_chunk_end(robot, start, policy, instruct, wait):
    start()
    instruct('go')
    assert wait(robot.real_chunks)
    robot.images_on = False
    assert wait(lambda: robot.reported('policy_node', 's old'))
    assert robot.chunks[-1].points


@pytest.mark.parametrize('what', ['images_on', 'joints_on', 'frozen'])
def test_hold_on_loss_holds_at_once(graph, robot, scripted, instruct, wait, profile, what):
    policy = scripted(chunk=250)  # 10 s
    frozen = set()
    robot.picture = live_pictures(robot, frozen)
    robot.simulate()  # so that time stands still whenever this process does
    node = graph.add(PolicyNode, lambda values: policy, hold_on_loss=True, use_sim_time=True)
    node.start()
    instruct('go')
    assert wait(robot.real_chunks)
    if what == 'frozen':
        move_arms(robot)
        frozen.add('cam_high')
    else:
        setattr(robot, what, False)
    lost = robot.now()
    assert wait(lambda: not robot.chunks[-1].points)
    held = to_seconds(robot.chunks[-1].header.stamp)
    safety = profile.safety
    patience = {
        'images_on': safety.image_timeout,
        'joints_on': safety.joint_state_timeout,
        # Until the arms have moved far enough to show, and then as long as it may be a lag.
        'frozen': 0.1 + safety.frozen_timeout,
    }[what]
    assert patience - 0.1 < held - lost < patience + 0.3
    robot.live(0.3)
    assert not robot.chunks[-1].points
    frozen.clear()
    robot.images_on = robot.joints_on = True
    assert wait(lambda: robot.chunks[-1].points)


def jpeg(image):
    return cv2.imencode('.jpg', image)[1].tobytes()


def test_malformed_images_are_counted_and_survived(
    robot, start, policy, instruct, wait, profile, errors
):
    good = jpeg(np.full((48, 64, 3), 90, np.uint8))
    bad = [
        b'', b'\xff\xd8', good[:200], good[: len(good) // 2], b'\0' * 5000, bytes(reversed(good)),
        cv2.imencode('.png', np.zeros((8, 8), np.uint16))[1].tobytes()[:-9],
    ]  # fmt: skip
    publishers = [robot.create_publisher(CompressedImage, c.topic, 1) for c in profile.cameras]
    start()
    instruct('go')
    assert wait(robot.real_chunks)
    robot.images_on = False
    random, sent = np.random.default_rng(0), []

    def send_bad():
        stamp = robot.get_clock().now().to_msg()
        for publisher in publishers:
            data = bad[random.integers(len(bad))]
            text = str(random.choice(['jpeg', '', 'rgb8; jpeg compressed rgb8', 'x' * 500]))
            message = CompressedImage(format=text, data=array('B', data))
            message.header.stamp = stamp
            publisher.publish(message)
        sent.append(stamp)
        counts = [
            int(robot.report('policy_node', f'{c.name} undecodable') or 0) for c in profile.cameras
        ]
        return counts[0] >= 10

    assert wait(send_bad)
    chunks = len(robot.real_chunks())
    assert wait(lambda: (send_bad(), any('camera cam_high: comp' in e for e in errors()))[1])
    assert len(robot.real_chunks()) == chunks
    robot.images_on = True
    assert wait(lambda: len(robot.real_chunks()) > chunks)
    assert wait(lambda: robot.report('policy_node').level == DiagnosticStatus.OK)


def test_raw_images_and_a_cameras_own_order_of_colours(
    graph, robot, policy, instruct, wait, tmp_path
):
    content = yaml.safe_load(share_path('config', 'robots').joinpath('aloha_sim.yaml').read_text())
    high, left, right = content['cameras']
    high.update(topic='high', type='raw')
    left.update(topic='left', type='raw', encoding='bgr8')
    right.update(topic='right', encoding='rgb8')
    path = tmp_path / 'raw.yaml'
    path.write_text(yaml.safe_dump(content))
    red = np.zeros((24, 32, 3), np.uint8)
    red[..., 0] = 200
    kinds = (('high', Image), ('left', Image), ('right', CompressedImage))
    publishers = [robot.create_publisher(kind, topic, 1) for topic, kind in kinds]

    def publish():
        stamp = robot.now()
        first, second = raw_image(red, stamp, ''), raw_image(red[..., ::-1], stamp, '')
        # The second calls its BGR RGB; the third took its RGB for BGR when it compressed.
        third = CompressedImage(header=first.header, format='jpeg', data=array('B', jpeg(red)))
        for publisher, message in zip(publishers, (first, second, third), strict=True):
            publisher.publish(message)

    robot.create_timer(0.04, publish)
    graph.add(PolicyNode, lambda values: policy, robot=str(path)).start()
    instruct('go')
    assert wait(lambda: policy.observations)
    for name, image in policy.observations[0].images.items():
        np.testing.assert_allclose(image, red, atol=4, err_msg=name)
