# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The bring-up of lifecycle nodes: order, failures, operators, processes that are replaced."""

from __future__ import annotations

import signal
import time

import pytest
from std_srvs.srv import Trigger

from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.bringup_node import TABLE, BringupNode
from hbvla_ros.nodes.lifecycle import ManagedNode


class Lifecycle(ManagedNode):
    """A node that notes what happens to it."""

    def __init__(self, name, log, broken=False, **options):
        super().__init__(name, (), **options)
        self.log, self.broken = log, broken

    def configure(self):
        self.log.append(f'{self.get_name()} configure')
        if self.broken:
            raise HbvlaError('no such file')

    def activate(self):
        self.log.append(f'{self.get_name()} activate')

    def deactivate(self):
        self.log.append(f'{self.get_name()} deactivate')


@pytest.fixture
def log():
    return []


@pytest.fixture
def add(graph, log):
    def add(name, **settings):
        return graph.add(lambda **options: Lifecycle(name, log, **settings, **options))

    return add


@pytest.fixture
def bring_up(graph):
    def bring_up(**parameters):
        node = graph.add(BringupNode, nodes='one, two', diagnostics_rate=10.0, **parameters)
        node.start()
        return node

    return bring_up


@pytest.fixture
def call(robot, wait):
    def call(service):
        client = robot.create_client(Trigger, f'bringup_node/{service}')
        assert wait(client.service_is_ready)
        answer = client.call_async(Trigger.Request())
        assert wait(answer.done)
        return answer.result().success

    return call


def test_one_after_the_other_whenever_they_come(add, bring_up, log, robot, wait):
    bring_up()
    two = add('two')
    robot.live(0.5)
    assert log == [] and two.state_label == 'unconfigured'
    assert robot.reported('bringup_node', 'waiting for one')
    one = add('one')
    assert wait(lambda: two.is_active)
    assert one.is_active
    assert log == ['one configure', 'one activate', 'two configure', 'two activate']
    assert wait(lambda: robot.reported('bringup_node', 'all nodes are where they were wanted'))


def test_it_asks_first_and_requests_only_what_is_missing(add, bring_up, log, robot, wait):
    one, two = add('one'), add('two')
    one.start()
    two.trigger_configure()
    bring_up()
    assert wait(lambda: two.is_active)
    robot.live(0.5)
    assert log == ['one configure', 'one activate', 'two configure', 'two activate']


def test_a_failure_is_named_and_what_follows_waits(add, bring_up, log, robot, call, wait):
    one, two = add('one', broken=True), add('two')
    bring_up()
    assert wait(lambda: robot.reported('bringup_node', 'one: configure failed, its log says why'))
    assert robot.report('bringup_node').level == b'\x02'
    robot.live(1.0)
    assert log.count('one configure') == 1, 'it does not try again by itself'
    assert not any('two' in line for line in log)
    one.broken = False
    assert call('start')
    assert wait(lambda: two.is_active)


def test_what_an_operator_did_stays_so(add, bring_up, log, robot, wait):
    one, two = add('one'), add('two')
    bring_up()
    assert wait(lambda: robot.reported('bringup_node', 'all nodes are where'))
    one.trigger_deactivate()
    robot.live(1.5)
    assert one.state_label == 'inactive' and two.is_active


def test_stop_deactivates_the_last_first(add, bring_up, log, robot, call, wait):
    one, two = add('one'), add('two')
    bring_up()
    assert wait(lambda: robot.reported('bringup_node', 'all nodes are where'))
    assert call('stop')
    assert wait(lambda: one.state_label == 'inactive')
    assert log[-2:] == ['two deactivate', 'one deactivate']
    assert call('start')
    assert wait(lambda: two.is_active)


def test_without_autostart_it_waits(graph, add, robot, call, wait):
    one = add('one')
    graph.add(BringupNode, nodes='one', diagnostics_rate=10.0)
    assert wait(lambda: robot.reported('bringup_node', 'waiting for ~/start'))
    assert one.state_label == 'unconfigured' and call('start')
    assert wait(lambda: one.is_active)


def test_a_node_that_was_replaced_is_brought_up_again(graph, robot, wait):
    graph.add(BringupNode, nodes='arm_node', diagnostics_rate=10.0).start()
    for last in (False, True):
        arms = graph.process('arm_node')
        arms.says('activate done')
        assert wait(lambda: robot.last() is not None)
        if not last:
            arms.process.send_signal(signal.SIGKILL)
            arms.wait()
            time.sleep(1.0)  # as a launch waits before it starts it again


@pytest.mark.parametrize('nodes', ['', ' , ', 'arm_node,arm_node'])
def test_names_that_are_none(graph, nodes):
    with pytest.raises(HbvlaError, match='parameter nodes'):
        graph.add(BringupNode, nodes=nodes)


def test_parameters_are_described(graph):
    node = graph.add(BringupNode)
    for parameter in TABLE:
        assert node.describe_parameter(parameter.name).description.endswith('.')
