# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The quantize node: a real process on real DDS, from parameters to the deployed folder."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String
from std_srvs.srv import Trigger

from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.quantize_node import QuantizeNode
from hbvla_ros.nodes.quantize_parameters import JOB_TABLE, job_from
from hbvla_ros.packed.reader import PackedFolder
from hbvla_ros.quantizing import Cancelled

STATUS = '/quantize_node/status'
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture
def watch(robot):
    """Messages of the status topic and of /diagnostics as they come."""
    seen = {'status': [], 'diagnostics': []}
    robot.create_subscription(
        String, STATUS, lambda message: seen['status'].append(json.loads(message.data)), LATCHED
    )
    robot.create_subscription(
        DiagnosticArray, '/diagnostics', lambda m: seen['diagnostics'].extend(m.status), 10
    )
    return seen


def call(robot, wait, service):
    client = robot.create_client(Trigger, f'/quantize_node/{service}')
    assert wait(client.service_is_ready)
    answer = client.call_async(Trigger.Request())
    assert wait(answer.done)
    return answer.result()


def test_quantizes_reports_and_exits_0(graph, robot, wait, watch, tiny_checkpoint, tmp_path):
    out = tmp_path / 'deployed'
    process = graph.process(
        'quantize_node', checkpoint=tiny_checkpoint, out=out, method='rtn', autostart=False
    )
    # So small a network is finished before DDS has brought the two sides together.
    assert wait(lambda: watch['diagnostics'] and watch['status'])
    assert call(robot, wait, 'start').success
    assert process.wait() == 0, ''.join(process.lines)
    assert PackedFolder.open(out).manifest.method == 'rtn'
    # The process is gone, so whatever it did not see to arriving never comes.
    assert wait(lambda: watch['status'] and watch['status'][-1]['state'] == 'finished')
    assert wait(lambda: any('finished' in status.message for status in watch['diagnostics']))
    last = watch['status'][-1]
    assert last['step'] == last['steps'] == len(PackedFolder.open(out).layers)
    assert last['stored_bits'] == pytest.approx(
        PackedFolder.open(out).manifest.stored_bits_per_weight
    )


@pytest.mark.parametrize(
    'parameters, expected',
    [
        ({'checkpoint': None}, 'parameter checkpoint is empty'),
        ({'checkpoint': '/none', 'out': 'x'}, '/none: '),
        ({'method': 'magic'}, "method 'magic' is unknown"),
        ({'probe': 'magic'}, "parameter probe: 'magic' is not one of"),
        ({'frames': 0}, 'parameter frames: '),
        ({'components': 'wheels'}, 'wheels'),
        ({'settings': 'planes=many'}, '--set planes=many'),
    ],
)
def test_failure_is_an_error_line_and_exit_2(
    graph, tiny_checkpoint, tmp_path, parameters, expected
):
    values = {'checkpoint': tiny_checkpoint, 'out': tmp_path / 'out', **parameters}
    values = {name: value for name, value in values.items() if value is not None}
    process = graph.process('quantize_node', **values)
    assert process.wait() == 2, ''.join(process.lines)
    errors = [line for line in process.lines if '[ERROR]' in line]
    assert any(expected in line for line in errors), ''.join(process.lines)
    assert 'Traceback' not in ''.join(process.lines)
    assert not list(tmp_path.glob('out*'))


class SlowJob:
    """A pipeline that takes steps for hours, until it is cancelled."""

    def __init__(self, error=None):
        self.error, self.ended = error, ''

    def __call__(self, job, progress):
        progress.stage('quantizing', 1_000_000)
        try:
            for index in range(1_000_000):
                time.sleep(0.01)
                if self.error and index == 10:
                    raise self.error
                progress.step(f'layer {index}')
        except Cancelled:
            self.ended = 'cancelled'
            raise
        return 'written'


def make_node(graph, job, **parameters):
    return graph.add(QuantizeNode, job, checkpoint='here', out='there', **parameters)


def test_cancel_ends_between_two_steps(graph, robot, wait, watch):
    job = SlowJob()
    node = make_node(graph, job, autostart=False)
    assert not call(robot, wait, 'cancel').success, 'nothing runs yet'
    assert call(robot, wait, 'start').success
    again = call(robot, wait, 'start')
    assert not again.success and again.message == 'running already'
    assert wait(lambda: any(status['step'] > 3 for status in watch['status']))
    answer = call(robot, wait, 'cancel')
    assert answer.success
    assert wait(lambda: node.state == 'cancelled') and job.ended == 'cancelled'
    assert wait(lambda: watch['status'][-1]['state'] == 'cancelled')
    assert 'resume' in watch['status'][-1]['message']


def test_a_failure_is_kept_for_the_exit(graph, robot, wait, watch):
    node = make_node(graph, SlowJob(HbvlaError('model.safetensors: is gone')), autostart=False)
    assert call(robot, wait, 'start').success
    assert wait(lambda: node.failure)
    assert node.failure == 'model.safetensors: is gone'
    assert wait(lambda: watch['status'][-1]['state'] == 'failed')
    assert wait(lambda: any(status.level == b'\x02' for status in watch['diagnostics']))


def test_start_with_a_missing_parameter_says_which(graph, robot, wait):
    graph.add(QuantizeNode, SlowJob(), checkpoint='here', autostart=False)
    answer = call(robot, wait, 'start')
    assert not answer.success and 'parameter out is empty' in answer.message


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_within_2_s(graph, wait, watch, make_tiny_checkpoint, tmp_path, number):
    checkpoint = make_tiny_checkpoint()
    process = graph.process(
        'quantize_node', checkpoint=checkpoint, out=tmp_path / 'out', settings='rounds=4000'
    )
    assert wait(lambda: any(s['stage'] == 'quantizing' for s in watch['status']))
    process.process.send_signal(number)
    assert process.wait_at_most(2.0) == 0
    assert not (tmp_path / 'out').exists()
    assert 'Traceback' not in ''.join(process.lines)


def test_a_job_from_parameters():
    values = {row.name: row.default for row in JOB_TABLE} | {'checkpoint': 'a', 'out': 'b'}
    plain = job_from(values)
    assert (plain.calibration, plain.refine_frames, plain.bits) == ((), None, None)
    job = job_from(values | {'calibration': 'one:two/three', 'refine': 5, 'refine_frames': 9})
    assert job.calibration == (Path('one'), Path('two/three'))
    assert (job.refine, job.refine_frames) == (5, 9)
