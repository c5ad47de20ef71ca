# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The graph costs nothing: the scripted expert succeeds behind it as it does without it."""

from __future__ import annotations

import dataclasses

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import UInt64

from hbvla_ros.data import ActionChunk
from hbvla_ros.nodes.arm_node import ArmNode
from hbvla_ros.nodes.policy_node import PolicyNode
from hbvla_ros.nodes.sim_robot_node import SimRobotNode
from hbvla_ros.sim.demonstrations import expert_chunk
from hbvla_ros.sim.experts.pick_place import PickPlaceExpert
from hbvla_ros.sim.simulation import AlohaSimulation
from hbvla_ros.vla.platform import ALOHA

ROWS = 16


class ExpertPolicy:
    """Acts from the simulator's state at the instant of the images."""

    checkpoint = 'expert'
    platform = dataclasses.replace(
        ALOHA, robot='aloha_sim', cameras=('cam_high', 'cam_left_wrist', 'cam_right_wrist'),
        chunk=ROWS,
    )  # fmt: skip

    def __init__(self, states):
        self._states = states
        self._simulation = AlohaSimulation()
        self._expert = PickPlaceExpert(self._simulation)

    def warmup(self):
        pass

    def act(self, observation):
        self._simulation.restore_state(self._states[round(observation.stamp, 3)])
        rows = expert_chunk(self._simulation, self._expert, ROWS)
        return ActionChunk(rows, observation.stamp, self.platform.step, observation.stamp,
                           observation.instruction, self.checkpoint)  # fmt: skip


class StatefulSim(SimRobotNode):
    """A simulated robot that keeps the states behind its recent images, by stamp."""

    def __init__(self, **options):
        self.states = {}
        super().__init__(**options)

    def _make_simulation(self):
        self.simulation = super()._make_simulation()
        return self.simulation

    def on_images(self, now, images):
        self.states[round(now, 3)] = self.simulation.save_state()
        for stamp in [s for s in self.states if s < now - 2.0]:
            del self.states[stamp]
        super().on_images(now, images)


class Watcher(Node):
    def __init__(self, **options):
        super().__init__('watcher', **options)
        self.status = {}
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(DiagnosticStatus, 'sim_robot_node/status', self._take, latched)
        self.episodes = self.create_publisher(UInt64, 'sim_robot_node/episode', 1)

    def _take(self, message):
        self.status = {v.key: v.value for v in message.values}

    def is_over(self, seed):
        done = self.status.get('seed') == str(seed) and self.status['instruction']
        return done and (self.status['success'] == '1' or float(self.status['elapsed']) > 16.0)


def run_episodes(graph, wait, seeds, **parameters):
    """Successes of the expert behind the graph, one per seed."""
    watcher = graph.add(Watcher)
    robot = graph.add(StatefulSim, seed=seeds[0], **parameters)
    arms = graph.add(ArmNode, use_sim_time=True)
    policy = graph.add(PolicyNode, lambda values: ExpertPolicy(robot.states), use_sim_time=True)
    for node in (robot, arms, policy):
        node.start()
    successes = []
    for seed in seeds:
        if watcher.status.get('seed') != str(seed):
            watcher.episodes.publish(UInt64(data=seed))
        assert wait(lambda s=seed: watcher.is_over(s), 600.0), watcher.status
        successes.append(watcher.status['success'] == '1')
    return np.array(successes), arms


def test_the_expert_succeeds_behind_the_graph(graph, wait):
    seeds = [2_000_010, 2_000_011]
    successes, arms = run_episodes(graph, wait, seeds)
    assert successes.all()
    # The expert stays inside every limit; only a take-over may be a little too quick.
    assert arms._motion.interventions.total <= 10
