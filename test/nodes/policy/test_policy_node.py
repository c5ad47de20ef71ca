# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The policy node with fake cameras over real DDS; the network is replaced where noted."""

from __future__ import annotations

import itertools
from array import array
from types import SimpleNamespace

import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from hbvla_ros.control import inference
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.conversions import to_seconds
from hbvla_ros.nodes.inference import check_policy
from hbvla_ros.nodes.policy_node import PolicyNode


@pytest.fixture
def node(graph, robot, policy, wait):
    node = graph.add(PolicyNode, lambda values: policy, diagnostics_rate=10.0)
    node.start()
    return node


def test_without_an_instruction_it_only_watches(robot, node, policy, wait):
    robot.live(0.5)
    assert not policy.observations and not robot.real_chunks()
    assert wait(lambda: 'waiting for an instruction' in robot.report('policy_node').message)


def test_chunks_are_stamped_with_the_image_and_named(robot, node, policy, instruct, wait, profile):
    robot.pose[[6, 13]] = 0.25
    instruct('put the red cube into the bucket')
    assert wait(lambda: len(robot.real_chunks()) >= 2)
    message = robot.real_chunks()[-1]
    start = to_seconds(message.header.stamp)
    assert min(abs(start - stamp) for stamp in robot.image_stamps) < 1e-6
    assert tuple(message.joint_names) == profile.action_names
    assert message.header.frame_id == 'scripted-0000'
    assert to_seconds(message.points[2].time_from_start) == pytest.approx(0.08)
    np.testing.assert_allclose(message.points[0].positions, robot.pose, atol=1e-9)
    seen = policy.observations[-1]
    assert seen.instruction == 'put the red cube into the bucket'
    assert set(seen.images) == {camera.name for camera in profile.cameras} and seen.images[
        'cam_high'
    ].shape == (48, 64, 3)
    assert policy.threads == {'inference'}


def test_next_inference_starts_when_the_chunk_is_half_drained(graph, robot, policy, wait):
    robot.simulate()
    node = graph.add(PolicyNode, lambda values: policy, use_sim_time=True, instruction='go')
    node.start()
    assert wait(lambda: len(robot.real_chunks()) >= 12)
    starts = [to_seconds(m.header.stamp) for m in robot.real_chunks()][1:12]
    # Half of 9 steps of 0.04 s, then the newest image of 25 per second.
    assert np.diff(starts).min() > 0.18 - 0.04 - 1e-6
    assert np.median(np.diff(starts)) == pytest.approx(0.18, abs=0.05)


def test_another_instruction_flushes_and_drops_what_is_under_way(
    robot, node, policy, instruct, wait
):
    policy.release.clear()
    instruct('first')
    assert wait(lambda: policy.observations)
    assert wait(lambda: robot.chunks)  # the flush of the first instruction
    count = len(robot.chunks)
    instruct('second')
    assert wait(lambda: len(robot.chunks) > count)
    assert not robot.chunks[-1].points
    assert wait(lambda: robot.report('policy_node', 'instruction') == 'second')
    robot.live(0.2)  # so that the next one sees other images
    policy.release.set()
    assert wait(lambda: robot.real_chunks())
    used = [o for o in policy.observations if o.stamp == pytest.approx(
        to_seconds(robot.real_chunks()[0].header.stamp), abs=1e-6)]  # fmt: skip
    assert [o.instruction for o in used] == ['second']


def test_an_empty_instruction_stops(robot, node, policy, instruct, wait):
    instruct('go')
    assert wait(lambda: robot.real_chunks())
    instruct('')
    assert wait(lambda: not robot.chunks[-1].points)
    count = len(policy.observations)
    robot.live(0.4)
    assert len(policy.observations) <= count + 1 and not robot.chunks[-1].points


def test_old_images_are_not_used(robot, node, policy, instruct, wait):
    instruct('go')
    assert wait(lambda: robot.real_chunks())
    robot.images_on = False
    robot.live(0.5)
    count = len(policy.observations)
    robot.live(0.5)
    assert len(policy.observations) == count
    assert wait(lambda: 's old' in robot.report('policy_node').message)


def test_lost_joint_states_stop_inference(robot, node, policy, instruct, wait):
    instruct('go')
    assert wait(lambda: robot.real_chunks())
    robot.joints_on = False
    robot.live(0.5)
    assert wait(lambda: 'no joint states' in robot.report('policy_node').message)
    count = len(policy.observations)
    robot.live(0.3)
    assert len(policy.observations) == count


@pytest.mark.parametrize(
    'stamp, expected',
    [(lambda now: 0.0, 'has no stamps'), (lambda now: now - 0.5, 'check the clocks')],
)
def test_joint_states_of_another_time_stop_inference(
    robot, node, policy, instruct, wait, stamp, expected
):
    robot.joint_stamp = stamp
    instruct('go')
    assert wait(lambda: robot.reported('policy_node', expected))
    assert all(r.level == b'\x01' for r in list(robot.reports) if expected in r.message)
    robot.live(0.3)
    # States heard before the stamps went wrong may have served one inference; from now on none.
    policy.observations.clear()
    robot.live(0.4)
    assert not policy.observations
    robot.joint_stamp = lambda now: now
    assert wait(lambda: robot.real_chunks())


def test_malformed_image_is_reported_with_its_camera(robot, node, policy, instruct, wait, profile):
    robot.images_on = False
    publishers = [
        robot.create_publisher(CompressedImage, camera.topic, 1) for camera in profile.cameras
    ]

    def broken():
        for publisher in publishers:
            message = CompressedImage(format='jpeg', data=array('B', b'no image'))
            message.header.stamp = robot.get_clock().now().to_msg()
            publisher.publish(message)
        return 'camera cam_high: compressed image' in robot.report('policy_node').message

    instruct('go')
    assert wait(broken)
    robot.images_on = True
    assert wait(lambda: robot.real_chunks())


def test_diagnostics_tell_latency_rates_and_checkpoint(
    robot, node, policy, instruct, wait, monkeypatch
):
    # Only the policy takes time on this clock, the same every time.
    clock = itertools.count(0.0, 0.03)
    spent = [next(clock)]
    monkeypatch.setattr(inference, 'time', SimpleNamespace(perf_counter=lambda: spent[-1]))
    policy.spend = lambda delay: spent.append(next(clock))
    instruct('go')
    assert wait(lambda: len(robot.real_chunks()) >= 6)
    assert wait(lambda: robot.report('policy_node', 'acting p95') == '0.03')
    assert robot.report('policy_node', 'decoding p95') == '0'
    assert 0.03 < float(robot.report('policy_node', 'latency p95')) < 1.0
    assert float(robot.report('policy_node', 'publishing p95')) > 0.0
    assert robot.report('policy_node', 'checkpoint') == 'scripted-0000'
    assert wait(lambda: float(robot.report('policy_node', 'cam_high age')) < 0.3)
    assert robot.report('policy_node', 'instruction') == 'go'


def test_inference_slower_than_the_rest_of_a_chunk_is_reported(robot, node, policy, instruct, wait):
    policy.delay = 0.25
    instruct('go')
    assert wait(lambda: robot.reported('policy_node', 'inference takes'))
    assert robot.reported('policy_node', 'the rest of a chunk only 0.20 s')


def test_heartbeat_runs_while_the_network_hangs(robot, node, policy, instruct, wait):
    beats = []
    robot.create_subscription(Header, 'policy_node/heartbeat', beats.append, 10)
    policy.release.clear()
    instruct('go')
    assert wait(lambda: policy.observations)
    count = len(beats)
    robot.live(2.0)
    assert len(beats) > count + 5
    assert beats[-1].frame_id == 'active' and len(policy.observations) == 1
    policy.release.set()


def test_deactivated_it_flushes_and_stays_silent(robot, node, policy, instruct, wait):
    instruct('go')
    assert wait(lambda: robot.real_chunks())
    node.trigger_deactivate()
    assert wait(lambda: not robot.chunks[-1].points)
    count = len(robot.chunks)
    robot.live(0.3)
    assert len(robot.chunks) == count


def test_configure_fails_for_a_checkpoint_of_another_robot(graph, robot, scripted, capfd):
    other = scripted(robot='cobot_magic')
    node = graph.add(PolicyNode, lambda values: other)
    node.trigger_configure()
    assert node.state_label == 'unconfigured'
    message = "checkpoint scripted-0000 is for robot 'cobot_magic', the profile aloha_sim is"
    assert f'configure failed: {message}' in capfd.readouterr().err


@pytest.mark.parametrize(
    'change, expected',
    [
        ({'cameras': ('cam_high', 'cam_low')}, "needs camera 'cam_low', the profile aloha_sim has"),
        ({'chunk': 1}, 'makes chunks of one row'),
        ({'action_dim': 7, 'proprio_dim': 8}, 'has 7 actions and 8 proprioception values'),
    ],
)
def test_a_policy_that_does_not_fit_is_refused(profile, scripted, change, expected):
    with pytest.raises(HbvlaError, match=expected):
        check_policy(scripted(**change), profile)
