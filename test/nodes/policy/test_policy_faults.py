# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What the policy node makes of policies and people that misbehave, over real DDS."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from std_msgs.msg import Header, String

from hbvla_ros.nodes.conversions import to_seconds
from hbvla_ros.nodes.policy_node import PolicyNode


def test_an_inference_that_hangs_is_an_error_and_its_chunk_dropped(
    robot, start, policy, instruct, wait, errors
):
    beats = []
    robot.create_subscription(Header, 'policy_node/heartbeat', beats.append, 10)
    start(inference_deadline=0.3)
    instruct('go')
    assert wait(robot.real_chunks)
    policy.release.clear()
    assert wait(lambda: any('more than inference_deadline, 0.3 s' in text for text in errors()))
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
def test_actions_that_are_not_finite_never_leave(
    robot, start, policy, instruct, wait, value, errors
):
    def spoil(rows):
        rows[3, 9] = value
        return rows

    start()
    instruct('go')
    assert wait(robot.real_chunks)
    policy.alter = spoil
    expected = f'policy returned {value} for right_elbow in row 3; the whole chunk is dropped'
    assert wait(lambda: expected in errors())
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
    robot, start, policy, instruct, wait, capfd, errors
):
    def fall(delay):
        raise RuntimeError('no kernel image\nis available')

    start()
    policy.spend = fall
    instruct('go')
    assert wait(lambda: any('no kernel image' in text for text in errors()))
    assert all('\n' not in text for text in errors())
    policy.spend = time.sleep
    assert wait(robot.real_chunks)
    assert 'inference failed: RuntimeError' in capfd.readouterr().err


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
