# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Services and changeable parameters of the policy node, over real DDS."""

from __future__ import annotations

import signal
import threading

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.policy_node import PolicyNode


class Shelf:
    """Checkpoints by folder; loading waits while ``ready`` is not set."""

    def __init__(self, scripted):
        self.policies = {'/old': scripted('old-1'), '/new': scripted('new-2')}
        self.ready = threading.Event()
        self.ready.set()
        self.loading = []

    def load(self, values):
        folder = values['checkpoint']
        self.loading.append(threading.current_thread())
        self.ready.wait(600.0)
        if folder not in self.policies:
            raise HbvlaError(f'{folder}: no such checkpoint folder')
        return self.policies[folder]


@pytest.fixture
def shelf(scripted):
    return Shelf(scripted)


@pytest.fixture
def node(graph, robot, shelf):
    return graph.add(PolicyNode, shelf.load, diagnostics_rate=10.0, checkpoint='/old')


@pytest.fixture
def call(robot, wait):
    """Calls a service of the node; the answer, or what gives it later."""

    def send(name, request=None, kind=Trigger, later=False):
        client = robot.create_client(kind, f'policy_node/{name}')
        assert wait(client.service_is_ready)
        future = client.call_async(request or kind.Request())
        if later:
            return future
        assert wait(future.done)
        return future.result()

    return send


@pytest.fixture
def change(call):
    """Asks for a transition, which the executor's thread makes, as in a process."""

    def send(transition):
        request = ChangeState.Request(transition=Transition(id=transition))
        assert call('change_state', request, ChangeState).success

    return send


@pytest.fixture
def set_parameter(call):
    def send(name, value):
        kinds = {str: ParameterType.PARAMETER_STRING, bool: ParameterType.PARAMETER_BOOL,
                 float: ParameterType.PARAMETER_DOUBLE}  # fmt: skip
        fields = {str: 'string_value', bool: 'bool_value', float: 'double_value'}
        message = ParameterValue(type=kinds[type(value)], **{fields[type(value)]: value})
        request = SetParameters.Request(parameters=[ParameterMessage(name=name, value=message)])
        return call('set_parameters', request, SetParameters).results[0]

    return send


def last_is_flush(robot):
    return bool(robot.chunks) and not robot.chunks[-1].points


def test_stop_holds_and_start_goes_on(robot, node, call, instruct, wait, shelf):
    beats = []
    robot.create_subscription(Header, 'policy_node/heartbeat', beats.append, 10)
    node.start()
    instruct('go')
    assert wait(robot.real_chunks)
    answer = call('stop')
    assert answer.success and wait(lambda: last_is_flush(robot))
    count, seen = len(robot.chunks), len(shelf.policies['/old'].observations)
    robot.live(0.5)
    # One that was under way may end; its chunk stays here.
    assert len(robot.chunks) == count
    assert len(shelf.policies['/old'].observations) <= seen + 1
    assert wait(lambda: beats[-1].frame_id == 'active stopped')
    expected = 'active stopped, waiting for ~/start'
    assert wait(lambda: robot.report('policy_node').message == expected)
    assert call('start').success
    assert wait(lambda: len(robot.real_chunks()) and robot.chunks[-1].points)
    assert wait(lambda: beats[-1].frame_id == 'active')


def test_a_stop_drops_the_chunk_that_is_under_way(robot, node, call, instruct, wait, shelf):
    policy = shelf.policies['/old']
    policy.release.clear()
    node.start()
    instruct('go')
    assert wait(lambda: policy.observations)
    assert call('stop').success
    policy.release.set()
    assert wait(lambda: robot.report('policy_node', 'chunks dropped') == '1')
    assert not robot.real_chunks()


def test_services_answer_in_every_state(robot, node, call, change, wait):
    def answers():
        return {name: call(name).success for name in ('start', 'stop', 'reset', 'reload')}

    none = {'start': False, 'stop': True, 'reset': False, 'reload': False}
    assert answers() == none
    assert call('start').message == 'the node is not active: activate it first'
    change(Transition.TRANSITION_CONFIGURE)
    assert answers() == {**none, 'reset': True, 'reload': True}
    change(Transition.TRANSITION_ACTIVATE)
    assert all(answers().values())
    change(Transition.TRANSITION_DEACTIVATE)
    change(Transition.TRANSITION_CLEANUP)
    assert answers() == none
    change(Transition.TRANSITION_CONFIGURE)
    change(Transition.TRANSITION_ACTIVATE)
    assert all(answers().values())


def test_it_waits_for_start_if_told_so(graph, robot, policy, call, instruct, wait):
    node = graph.add(
        PolicyNode, lambda values: policy, wait_for_start=True, instruction='go', checkpoint='/x'
    )
    node.start()
    robot.live(0.5)
    assert not policy.observations
    assert call('start').success and wait(robot.real_chunks)


def test_reset_forgets_chunk_latencies_and_failure(robot, node, call, instruct, wait, shelf):
    policy = shelf.policies['/old']
    node.start()
    instruct('go')
    assert wait(lambda: robot.report('policy_node', 'latency p95') not in ('', 'unknown'))
    policy.alter = lambda rows: rows * float('nan')
    assert wait(lambda: 'policy returned nan' in robot.report('policy_node').message)
    policy.release.clear()
    count = len(policy.observations)
    assert wait(lambda: len(policy.observations) > count)
    assert call('reset').success
    assert wait(lambda: robot.report('policy_node', 'latency p95') == 'unknown')
    assert last_is_flush(robot) and robot.report('policy_node', 'last failure') == ''
    policy.alter = lambda rows: rows
    policy.release.set()
    assert wait(lambda: robot.chunks[-1].points)


def test_instruction_by_parameter(robot, node, set_parameter, instruct, wait, shelf):
    node.start()
    observations = shelf.policies['/old'].observations
    assert set_parameter('instruction', ' by parameter ').successful
    assert wait(lambda: observations and observations[-1].instruction == 'by parameter')
    instruct('by topic')
    assert wait(lambda: observations[-1].instruction == 'by topic')
    # The same text again is a change by now.
    assert set_parameter('instruction', ' by parameter ').successful
    assert wait(lambda: observations[-1].instruction == 'by parameter')
    refused = set_parameter('instruction', 'x' * 1001)
    assert not refused.successful and '1001 characters' in refused.reason
    instruct('y' * 1001)
    robot.live(0.3)
    assert observations[-1].instruction == 'by parameter'
    assert set_parameter('instruction', '').successful
    assert wait(lambda: last_is_flush(robot))


def test_what_could_weaken_safety_is_fixed(robot, node, set_parameter):
    node.start()
    for name, value in (
        ('use_sim_time', True), ('hold_on_loss', True), ('inference_deadline', 600.0),
        ('robot', 'aloha_sim'), ('platform', 'aloha'), ('replan_fraction', 0.1), ('checkpoint', ''),
    ):  # fmt: skip
        result = set_parameter(name, value)
        assert not result.successful and result.reason, name


def test_reload_takes_over_while_the_old_one_goes_on(
    robot, node, call, set_parameter, instruct, wait, shelf
):
    old, new = shelf.policies['/old'], shelf.policies['/new']
    node.start()
    instruct('go')
    assert wait(robot.real_chunks)
    assert set_parameter('checkpoint', '/new').successful
    shelf.ready.clear()
    answer = call('reload', later=True)
    assert wait(lambda: len(shelf.loading) == 2)
    # The old policy goes on, heartbeats and services as well, and a second reload is refused.
    count = len(robot.real_chunks())
    assert wait(lambda: len(robot.real_chunks()) >= count + 3)
    assert call('reload').message == 'a checkpoint is being loaded already'
    assert wait(lambda: robot.report('policy_node', 'last reload') == 'loading /new')
    assert not answer.done() and not new.observations
    shelf.ready.set()
    assert wait(answer.done)
    assert answer.result().success and 'new-2 instead of old-1' in answer.result().message
    assert wait(lambda: robot.chunks[-1].header.frame_id == 'new-2' and robot.chunks[-1].points)
    names = [(message.header.frame_id, bool(message.points)) for message in robot.chunks]
    first = names.index(('new-2', True))
    # The arms were told to hold between the last chunk of the one and the first of the other.
    assert names[first - 1] == ('new-2', False)
    assert not any(name == 'old-1' for name, _ in names[first:])
    assert wait(lambda: robot.report('policy_node', 'checkpoint') == 'new-2')
    # Each policy had a thread of its own from loading on.
    assert shelf.loading[0] is not shelf.loading[1] and wait(
        lambda: not shelf.loading[0].is_alive()
    )
    count = len(old.observations)
    robot.live(0.3)
    assert len(old.observations) == count


@pytest.mark.parametrize(
    'folder, change, expected',
    [
        ('/none', None, '/none: no such checkpoint folder; old-1 goes on'),
        ('/new', {'robot': 'cobot_magic'}, "is for robot 'cobot_magic', the profile aloha_sim is"),
        ('/new', {'chunk': 1}, 'new-2 makes chunks of one row'),
        ('/new', 'broken', 'RuntimeError'),
    ],
)
def test_a_bad_checkpoint_leaves_the_old_one_running(
    robot, node, call, set_parameter, instruct, wait, shelf, scripted, folder, change, expected
):
    if isinstance(change, dict):
        shelf.policies['/new'] = scripted('new-2', **change)
    if change == 'broken':

        def warmup():
            raise RuntimeError('out of memory\nwith a long story')

        shelf.policies['/new'].warmup = warmup
    node.start()
    instruct('go')
    assert wait(robot.real_chunks)
    assert set_parameter('checkpoint', folder).successful
    answer = call('reload')
    assert not answer.success and expected in answer.message and '\n' not in answer.message
    assert wait(lambda: expected in robot.report('policy_node', 'last reload'))
    count = len(robot.real_chunks())
    assert wait(lambda: len(robot.real_chunks()) > count)
    assert {message.header.frame_id for message in robot.chunks} == {'old-1'}
    # And a good one is still taken.
    shelf.policies['/other'] = scripted('other-3')
    assert set_parameter('checkpoint', '/other').successful and call('reload').success
    assert wait(lambda: robot.chunks[-1].header.frame_id == 'other-3')


def test_a_reload_may_need_other_cameras(
    robot, node, call, set_parameter, instruct, wait, shelf, scripted
):
    shelf.policies['/new'] = scripted('new-2', cameras=('cam_high',))
    node.start()
    instruct('go')
    assert wait(robot.real_chunks)
    assert set_parameter('checkpoint', '/new').successful and call('reload').success
    new = shelf.policies['/new']
    assert wait(lambda: new.observations and robot.chunks[-1].points)
    assert set(new.observations[-1].images) == {'cam_high'}


def test_a_reload_leaves_an_inference_behind_that_hangs(
    robot, node, call, set_parameter, instruct, wait, shelf
):
    old = shelf.policies['/old']
    old.release.clear()
    node.start()
    instruct('go')
    assert wait(lambda: old.observations)
    assert set_parameter('checkpoint', '/new').successful and call('reload').success
    assert wait(lambda: robot.real_chunks())
    assert robot.chunks[-1].header.frame_id == 'new-2' and len(old.observations) == 1
    old.release.set()
    assert wait(lambda: robot.report('policy_node', 'chunks dropped') == '1')
    assert all(message.header.frame_id == 'new-2' for message in robot.real_chunks())


def test_a_reload_ends_with_the_node(robot, node, call, change, wait, shelf):
    node.start()
    shelf.ready.clear()
    answer = call('reload', later=True)
    assert wait(lambda: len(shelf.loading) == 2)
    change(Transition.TRANSITION_DEACTIVATE)
    change(Transition.TRANSITION_CLEANUP)
    assert wait(answer.done)
    assert not answer.result().success
    assert answer.result().message == 'the node was cleaned up meanwhile'
    shelf.ready.set()
    assert wait(lambda: not shelf.loading[1].is_alive())


def test_real_checkpoints_are_exchanged_in_a_process(
    graph, robot, call, set_parameter, wait, make_tiny_checkpoint
):
    cameras = ('cam_high', 'cam_left_wrist', 'cam_right_wrist')
    platform = {'robot': 'aloha_sim', 'cameras': cameras}
    first = make_tiny_checkpoint('first', platform=platform)
    second = make_tiny_checkpoint('second', platform=platform)
    process = graph.process('policy_node', autostart=True, checkpoint=first, instruction='go')
    assert wait(robot.real_chunks)
    before = robot.real_chunks()[-1].header.frame_id
    (first / 'damaged').mkdir()
    assert set_parameter('checkpoint', str(first / 'damaged')).successful
    answer = call('reload')
    assert not answer.success and f'{before} goes on' in answer.message
    assert set_parameter('checkpoint', str(second)).successful
    answer = call('reload')
    assert answer.success and f'instead of {before}' in answer.message
    assert wait(lambda: robot.real_chunks()[-1].header.frame_id.startswith('second'))
    # A signal in the middle of a reload is obeyed as ever.
    call('reload', later=True)
    process.process.send_signal(signal.SIGTERM)
    assert process.wait_at_most(2.0) == 0
    process.says('shutdown done')
