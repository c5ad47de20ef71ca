# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What each kind of driver is sent, and when; vendors' messages by stand-ins with their fields."""

from __future__ import annotations

import dataclasses
import sys
import types

import numpy as np
import pytest
from rclpy.node import Node
from sensor_msgs.msg import JointState

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.adapters import CommandWriter, Motion, command_topics, make_adapter
from hbvla_ros.nodes.adapters.gripper import Hysteresis
from hbvla_ros.nodes.adapters.interbotix import JointGroupCommand, JointSingleCommand

SIM = RobotProfile.load('aloha_sim')
PERIOD = 0.04


def robot(**changes):
    """The simulated robot with arms of another kind."""
    return dataclasses.replace(
        SIM, arms=tuple(dataclasses.replace(arm, **changes) for arm in SIM.arms)
    )


def stand_in(monkeypatch, package, module, **kinds):
    """A package of messages that exists for this test only."""
    parts = types.ModuleType(f'{package}.{module}')
    for name, kind in kinds.items():
        setattr(parts, name, kind)
    monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    monkeypatch.setitem(sys.modules, f'{package}.{module}', parts)


@dataclasses.dataclass
class Group:
    """The fields of interbotix_xs_msgs/JointGroupCommand."""

    name: str
    cmd: list


@dataclasses.dataclass
class Single:
    """The fields of interbotix_xs_msgs/JointSingleCommand."""

    name: str
    cmd: float


class TestInterbotix:
    profile = robot(
        adapter='interbotix',
        group='arm',
        gripper_adapter='interbotix_single',
        gripper_command_topic='commands/joint_single',
        gripper_command_name='gripper',
        gripper_hysteresis=0.1,
    )
    arm = profile.arms[0]

    def test_without_the_vendors_messages_one_line_says_so(self):
        with pytest.raises(HbvlaError, match='needs interbotix_xs_msgs/msg/JointGroupCommand'):
            make_adapter(self.arm)

    def test_group_and_gripper_apart(self, monkeypatch):
        messages = {'JointGroupCommand': Group, 'JointSingleCommand': Single}
        stand_in(monkeypatch, 'interbotix_xs_msgs', 'msg', **messages)
        adapter, pose = make_adapter(self.arm), np.append(np.linspace(-0.5, 0.5, 6), 0.25)
        assert isinstance(adapter, JointGroupCommand)
        message = adapter.build(pose, 3.0)
        assert message.name == 'arm' and len(message.cmd) == 6
        np.testing.assert_allclose(adapter.parse(message), pose[:6], atol=1e-6)
        message.name = 'all'
        with pytest.raises(HbvlaError, match="group 'all' is not 'arm'"):
            adapter.parse(message)
        with pytest.raises(HbvlaError, match='expected 6 numbers, got 5'):
            adapter.parse(Group('arm', message.cmd[:5]))
        single = JointSingleCommand(self.arm)
        message = single.build(0.25)
        assert message.name == 'gripper'
        assert message.cmd == pytest.approx(0.01844 + 0.25 * (0.058 - 0.01844))
        assert single.parse(message) == pytest.approx(0.25)
        for wrong, reason in (('waist', "joint 'waist'"), ('gripper', 'not finite')):
            with pytest.raises(HbvlaError, match=reason):
                single.parse(Single(wrong, float('nan')))

    def test_both_topics_of_an_arm_are_command_topics(self):
        topics = ['left/commands', 'commands/joint_single']
        assert command_topics(self.profile)[:2] == topics


class TestHysteresis:
    def test_only_news_passes(self):
        band = Hysteresis(0.1)
        assert [band.latest(x) for x in (0.5, 0.55, 0.61, 0.56)] == [0.5, 0.5, 0.61, 0.61]

    def test_fully_open_and_fully_closed_always_pass(self):
        band = Hysteresis(0.1)
        assert [band.latest(x) for x in (0.95, 1.0, 0.05, 0.0)] == [0.95, 1.0, 0.05, 0.0]
        assert not band.passes(0.0)


class Goal:
    """The field of control_msgs/ParallelGripperCommand's goal."""

    def __init__(self):
        self.command = JointState()


class Server:
    """An action client of rclpy as far as it is used, and the server behind it."""

    def __init__(self):
        self.goals, self.ready, self.accepts = [], True, True

    def __call__(self, node, kind, name):
        assert kind.Goal is Goal
        self.name = name
        return self

    def server_is_ready(self):
        return self.ready

    def send_goal_async(self, goal):
        self.goals.append(goal.command)
        return self

    def add_done_callback(self, receive):
        receive(self)

    def cancelled(self):
        return False

    def exception(self):
        return None

    def result(self):
        return types.SimpleNamespace(accepted=self.accepts)

    def destroy(self):
        pass


class TestGripperAction:
    profile = robot(
        gripper_adapter='parallel_gripper_action',
        gripper_command_topic='gripper_controller/gripper_cmd',
        gripper_command_name='left_carriage_joint',
        gripper_hysteresis=0.1,
    )

    def test_without_the_action_one_line_says_so(self, graph):
        with pytest.raises(HbvlaError, match='needs control_msgs/action/ParallelGripperCommand'):
            CommandWriter(graph.add(Node, 'writer'), self.profile)

    @pytest.fixture
    def gripper(self, graph, monkeypatch):
        from hbvla_ros.nodes.adapters import gripper

        server = Server()
        kind = types.SimpleNamespace(Goal=Goal)
        stand_in(monkeypatch, 'control_msgs', 'action', ParallelGripperCommand=kind)
        monkeypatch.setattr(gripper, 'ActionClient', server)
        output = gripper.ParallelGripper(graph.add(Node, 'writer'), self.profile.arms[0])

        def offer(ratio, holding=False):
            pose = np.append(np.zeros(6), ratio)
            send = output.prepare(Motion(0.0, PERIOD, pose[np.newaxis], holding))
            if send is not None:
                send()
            return [goal.position[0] for goal in server.goals]

        return output, server, offer

    def test_goals_when_the_opening_changes_and_not_before(self, gripper):
        output, server, offer = gripper
        assert offer(0.5, holding=True) == [], 'a grasp somebody else made is not touched'
        sent = [len(offer(ratio)) for ratio in (1.0, 0.95, 0.8, 0.75, 0.05, 0.0, 0.0)]
        assert sent == [1, 1, 2, 2, 3, 4, 4]
        assert server.goals[0].name == ['left_carriage_joint']
        np.testing.assert_allclose(
            [g.position[0] for g in server.goals][::3], [0.058, 0.01844], atol=1e-9
        )
        assert offer(0.0, holding=True)[-1] == pytest.approx(0.01844)
        assert output.problem() == ''

    def test_without_a_server_there_is_a_problem_and_no_goal(self, gripper):
        output, server, offer = gripper
        server.ready = False
        assert offer(1.0) == []
        assert output.problem() == 'no action server gripper_controller/gripper_cmd'
        server.ready = True
        assert len(offer(1.0)) == 1

    def test_a_refused_goal_is_offered_again_later(self, gripper, monkeypatch):
        from hbvla_ros.nodes.adapters import gripper as module

        output, server, offer = gripper
        now = [10.0]
        stand_in = types.SimpleNamespace(monotonic=lambda: now[0])
        monkeypatch.setattr(module, 'time', stand_in)
        server.accepts = False
        assert len(offer(1.0)) == 1 and 'refuses goals' in output.problem()
        assert len(offer(1.0)) == 1
        now[0] += 2.0
        server.accepts = True
        assert output.problem() == '' and len(offer(1.0)) == 2
        assert len(offer(1.0)) == 2


def test_one_message_that_cannot_be_built_keeps_all_arms_still(graph, robot_listener, wait):
    writer = CommandWriter(graph.add(Node, 'writer'), SIM)
    wires = [outputs[0]._publisher for outputs in writer._outputs]
    assert wait(lambda: all(wire.get_subscription_count() for wire in wires))
    pose = SIM.start_pose
    writer.send(pose, 0.0, False, lambda: (pose[np.newaxis], 0))
    broken = writer._outputs[1][0]

    def fail(motion):
        raise HbvlaError('no')

    broken.prepare = fail
    with pytest.raises(HbvlaError):
        writer.send(pose, 0.0, False, lambda: (pose[np.newaxis], 0))
    robot_listener(1)


@pytest.fixture
def robot_listener(robot, wait):
    """Check that both arms have been sent just so many commands."""

    def check(count):
        assert wait(lambda: len(robot.recorded()) == count)
        robot.live(0.2)
        assert [len(c) for c in robot.commands.values()] == [count, count]

    return check
