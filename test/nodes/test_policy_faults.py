# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What the policy node makes of cameras, policies and people that misbehave, over real DDS."""

from __future__ import annotations

import threading
import time
from array import array

import cv2
import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String

from hbvla_ros.nodes.conversions import raw_image, to_seconds
from hbvla_ros.nodes.policy_node import PolicyNode
from hbvla_ros.resources import share_path

SLOW = [0, 7]  # the waists


@pytest.fixture
def start(graph, robot, policy):
    def make(**parameters):
        node = graph.add(PolicyNode, lambda values: policy, diagnostics_rate=10.0, **parameters)
        node.start()
        return node

    return make


def reports_of(robot, level):
    return [s for s in list(robot.reports) if s.name.endswith('policy_node') and s.level == level]


def errors(robot):
    return [status.message for status in reports_of(robot, DiagnosticStatus.ERROR)]


def live_pictures(robot, frozen):
    """Pictures that change all the time, but for the cameras in ``frozen``."""
    return lambda name: np.full((48, 64, 3), 0 if name in frozen else robot.turns % 250, np.uint8)


def move_arms(robot):
    def turn():
        robot.pose = robot.pose + np.isin(np.arange(14), SLOW) * 0.02

    return robot.create_timer(0.02, turn)


def test_a_frozen_camera_stops_inference_and_is_named(robot, start, policy, instruct, wait):
    frozen = set()
    robot.picture = live_pictures(robot, frozen)
    start()
    motion = move_arms(robot)
    instruct('go')
    assert wait(robot.real_chunks)
    frozen.add('cam_left_wrist')
    expected = 'cam_left_wrist is frozen: the same image under new stamps while the arms move'
    assert wait(lambda: expected in errors(robot))
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


def test_a_robot_at_rest_has_no_frozen_camera(robot, start, policy, instruct, wait):
    start()
    instruct('go')
    assert wait(lambda: int(robot.report('policy_node', 'cam_high received') or 0) > 40)
    count = len(policy.observations)
    assert wait(lambda: len(policy.observations) > count)
    assert not errors(robot) and robot.report('policy_node', 'cam_high frozen') == '0'


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


def test_an_inference_that_hangs_is_an_error_and_its_chunk_dropped(
    robot, start, policy, instruct, wait
):
    beats = []
    robot.create_subscription(Header, 'policy_node/heartbeat', beats.append, 10)
    start(inference_deadline=0.3)
    instruct('go')
    assert wait(robot.real_chunks)
    policy.release.clear()
    assert wait(
        lambda: any('more than inference_deadline, 0.3 s' in text for text in errors(robot))
    )
    chunks, observations, count = len(robot.chunks), len(policy.observations), len(beats)
    robot.live(1.0)
    # Nothing is queued behind it, and the rest of the node lives on.
    assert len(policy.observations) == observations and len(beats) > count + 5
    dropped = int(robot.report('policy_node', 'chunks dropped'))
    policy.release.set()
    assert wait(lambda: len(robot.chunks) > chunks)
    late = policy.observations[observations - 1].stamp
    stamps = [to_seconds(message.header.stamp) for message in robot.chunks[chunks:]]
    assert min(stamps) > late + 0.5
    assert wait(lambda: robot.report('policy_node', 'chunks dropped') == str(dropped + 1))
    assert robot.report('policy_node', 'inferences late') == '1'
    assert wait(lambda: robot.report('policy_node').level != DiagnosticStatus.ERROR)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_actions_that_are_not_finite_never_leave(robot, start, policy, instruct, wait, value):
    def spoil(rows):
        rows[3, 9] = value
        return rows

    start()
    instruct('go')
    assert wait(robot.real_chunks)
    policy.alter = spoil
    expected = f'policy returned {value} for right_elbow in row 3; the whole chunk is dropped'
    assert wait(lambda: expected in errors(robot))
    count = len(policy.observations)
    assert wait(lambda: len(policy.observations) > count + 3)  # it goes on trying
    policy.alter = lambda rows: rows
    assert wait(lambda: robot.report('policy_node', 'last failure') == '')
    assert all(
        np.isfinite([point.positions for point in message.points]).all()
        for message in robot.real_chunks()
    )
    assert int(robot.report('policy_node', 'inferences failed')) > 3


def test_a_policy_that_raises_is_logged_with_its_reason(
    robot, start, policy, instruct, wait, capfd
):
    def fall(delay):
        raise RuntimeError('no kernel image\nis available')

    start()
    policy.spend = fall
    instruct('go')
    assert wait(lambda: any('no kernel image' in text for text in errors(robot)))
    assert all('\n' not in text for text in errors(robot))
    policy.spend = time.sleep
    assert wait(robot.real_chunks)
    assert 'inference failed: RuntimeError' in capfd.readouterr().err


def jpeg(image):
    return cv2.imencode('.jpg', image)[1].tobytes()


def test_malformed_images_are_counted_and_survived(robot, start, policy, instruct, wait, profile):
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
    assert wait(lambda: (send_bad(), any('camera cam_high: comp' in e for e in errors(robot)))[1])
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


def test_a_flood_of_instructions_starves_nothing_and_piles_up_nowhere(
    graph, robot, start, policy, wait
):
    sender = graph.add(Sender)
    beats, overlap, running = [], [], []

    def spend(_delay):
        overlap.append(len(running))
        running.append(1)
        time.sleep(0.02)
        running.pop()

    policy.spend = spend
    robot.create_subscription(Header, 'policy_node/heartbeat', beats.append, 50)
    start()
    assert wait(lambda: sender.publisher.get_subscription_count() == 1 and len(beats) > 2)
    sender.flood(['pick', 'place'])
    robot.live(0.5)
    before = len(beats), len(robot.reports), len(policy.observations), len(robot.chunks)
    began = time.monotonic()
    robot.live(3.0)
    passed = time.monotonic() - began
    heard, reported, seen, told = (
        now - then
        for now, then in zip(
            (len(beats), len(robot.reports), len(policy.observations), len(robot.chunks)),
            before,
            strict=True,
        )
    )
    sender.end('rest')
    # In time in which the process got on: heartbeats of 20 Hz, reports of 10 Hz, inferences.
    assert heard > 20 and reported > 10 and seen > 5
    # One by one, each of 0.02 s; a flush at most for each look at the instruction.
    assert max(overlap) == 0 and seen <= 1 + passed / 0.02 and told <= 220 * passed
    ended = robot.turns
    assert wait(lambda: policy.observations[-1].instruction == 'rest')
    assert wait(lambda: robot.chunks[-1].points)
    # None of the flood is left in any queue.
    assert (robot.turns - ended) * 0.02 < 5.0
    count = len(policy.observations)
    robot.live(0.5)
    assert {o.instruction for o in policy.observations[count:]} == {'rest'}
    assert sender.sent > 300
    assert robot.report('policy_node', 'instruction') == 'rest'


class Sender(Node):
    """Publishes instructions as fast as it can, 1000 a second at most."""

    def __init__(self, **options):
        super().__init__('sender', **options)
        self.publisher = self.create_publisher(String, 'policy_node/instruction', 5)
        self.sent, self._on = 0, True

    def flood(self, texts):
        def work():
            while self._on:
                self.publisher.publish(String(data=texts[self.sent % len(texts)]))
                self.sent += 1
                time.sleep(0.001)

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    def end(self, text):
        self._on = False
        self._thread.join()
        self.publisher.publish(String(data=text))


def test_diagnostics_tell_what_runs_and_what_became_of_every_message(
    robot, start, policy, instruct, wait
):
    start()
    instruct('go')
    assert wait(lambda: int(robot.report('policy_node', 'right arm used') or 0) >= 3)
    values = {pair.key: pair.value for pair in robot.report('policy_node').values}
    assert values['backend'] == 'torch on cpu' and values['residency'] == 'bf16'
    assert 20.0 < float(values['memory']) < 1e5 and values['device memory'] == 'unknown'
    for name in ('cam_high', 'cam_left_wrist', 'cam_right_wrist'):
        received, used, replaced = (
            int(values[f'{name} {what}']) for what in ('received', 'used', 'replaced')
        )
        assert 0 < used <= received and used + replaced <= received
        for what in ('too old', 'skewed', 'out of order', 'undecodable', 'frozen'):
            assert int(values[f'{name} {what}']) >= 0
    for name in ('left arm', 'right arm'):
        assert int(values[f'{name} received']) >= int(values[f'{name} used']) > 0
        assert values[f'{name} undecodable'] == '0'
    for what in ('decoding', 'acting', 'publishing'):
        assert 0.0 <= float(values[f'{what} p95']) <= float(values['latency p95']) + 1e-4


def test_configure_does_not_take_what_never_was_loaded(graph, robot, policy, capfd):
    def load(values):
        raise ValueError('broken\nby somebody')

    node = graph.add(PolicyNode, load)
    node.trigger_configure()
    assert node.state_label == 'unconfigured'
    assert "configure failed: ValueError('broken" in capfd.readouterr().err
