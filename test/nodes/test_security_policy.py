# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The SROS2 sample policy against what the nodes really have in the graph."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import pytest
from rclpy.node import Node

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.nodes.adapters import command_topics
from hbvla_ros.nodes.arm_node import ArmNode
from hbvla_ros.nodes.bringup_node import BringupNode
from hbvla_ros.nodes.guard_node import GuardNode
from hbvla_ros.nodes.policy_node import PolicyNode
from hbvla_ros.nodes.replay_node import ReplayNode
from hbvla_ros.nodes.sim_robot_node import SimRobotNode
from hbvla_ros.recordings.fixture import FixtureOptions, write_fixture
from hbvla_ros.resources import share_path
from hbvla_ros.vla.platform import Platform

FILE = share_path('config', 'sros2', 'aloha_sim.policy.xml')
PLATFORM = Platform.read(share_path('models', 'aloha_sim_small', 'platform.json'))
# rclpy has these depending on its release and on use_sim_time; they move nothing.
OPTIONAL = {'/clock', '/parameter_events', '~/get_type_description'}
ATTRIBUTES = {'topics': ('publish', 'subscribe'), 'services': ('reply', 'request')}


def full(profile, name):
    """A name of the policy as sros2 expands it."""
    space = profile.get('ns').rstrip('/')
    if name.startswith('~/'):
        return f'{space}/{profile.get("node")}{name[1:]}'
    return name if name.startswith('/') else f'{space}/{name}'


def rights_of(profile):
    """What one profile allows: publish, subscribe, reply and request to sets of full names."""
    rights = {verb: set() for verbs in ATTRIBUTES.values() for verb in verbs}
    for part in profile:
        for verb in ATTRIBUTES[part.tag]:
            if part.get(verb) is not None:
                assert part.get(verb) == 'ALLOW'
                rights[verb] |= {full(profile, each.text) for each in part}
    return rights


@pytest.fixture(scope='module')
def policy():
    """Rights by node name."""
    root = ElementTree.parse(FILE).getroot()
    profiles = root.findall('./enclaves/enclave/profiles/profile')
    return {profile.get('node'): rights_of(profile) for profile in profiles}


class Stand:
    """Stands in for the network; no inference runs here."""

    checkpoint, platform = 'stand-0000', PLATFORM

    def warmup(self):
        """Nothing to warm up."""


@pytest.fixture
def entries(graph, wait):
    """Asks the graph what a node has: publish, subscribe, reply and request to full names."""
    observer = graph.add(Node, 'observer')

    def entries(name):
        assert wait(lambda: name in observer.get_node_names())
        asked = SimpleNamespace(
            publish=observer.get_publisher_names_and_types_by_node,
            subscribe=observer.get_subscriber_names_and_types_by_node,
            reply=observer.get_service_names_and_types_by_node,
            request=observer.get_client_names_and_types_by_node,
        )
        return {verb: {each for each, _ in ask(name, '/')} for verb, ask in vars(asked).items()}

    return entries


def assert_fits(rights, node, created):
    """A node has what it may have, and may have no more than it has."""
    optional = {name.replace('~', f'/{node}') for name in OPTIONAL}
    for verb, done in created.items():
        allowed = rights[verb]
        assert done <= allowed, f'{node} cannot {verb} {sorted(done - allowed)}: add it'
        unused = allowed - done - optional
        assert not unused, f'{node} does not {verb} {sorted(unused)}: take it out'


def test_it_allows_what_the_nodes_do_and_nothing_else(policy, graph, entries):
    nodes = {
        'policy_node': graph.add(PolicyNode, lambda values: Stand(), use_sim_time=True),
        'arm_node': graph.add(ArmNode, use_sim_time=True),
        'guard_node': graph.add(GuardNode, use_sim_time=True, dead_man_topic='joy'),
        'bringup_node': graph.add(BringupNode),
        'sim_robot_node': graph.add(SimRobotNode),
    }
    for name in ('policy_node', 'arm_node'):
        nodes[name].start()
    for node in nodes:
        assert_fits(policy[node], node, entries(node))


def test_the_same_of_the_player_that_takes_the_place_of_the_robot(
    policy, graph, entries, profile, tmp_path
):
    write_fixture(tmp_path / 'bag', profile, FixtureOptions(seconds=0.2))
    graph.add(ReplayNode, bag=str(tmp_path / 'bag')).start()
    assert_fits(policy['replay_node'], 'replay_node', entries('replay_node'))
    robot, player = policy['sim_robot_node']['publish'], policy['replay_node']['publish']
    assert player - {'/rosout', '/parameter_events'} < robot


def test_only_the_arms_and_the_guard_may_command(policy):
    commands = {f'/{topic}' for topic in command_topics(RobotProfile.load('aloha_sim'))}
    assert len(commands) == 2
    for node, rights in policy.items():
        allowed = commands if node in ('arm_node', 'guard_node') else set()
        assert rights['publish'] & commands == allowed, node


def test_nobody_can_speak_for_another(policy):
    for topic, owner in (
        ('/stop', 'guard_node'),
        ('/action_chunks', 'policy_node'),
        ('/arm_node/heartbeat', 'arm_node'),
        ('/guard_node/heartbeat', 'guard_node'),
        ('/policy_node/heartbeat', 'policy_node'),
    ):
        assert [node for node in policy if topic in policy[node]['publish']] == [owner]


def test_the_operator_reaches_what_it_asks_for(policy):
    operator = policy['operator']
    others = [rights for node, rights in policy.items() if node != 'operator']
    assert operator['request'] <= set().union(*(rights['reply'] for rights in others))
    heard = set().union(*(rights['subscribe'] for rights in others))
    assert operator['publish'] - {'/rosout'} <= heard
    said = set().union(*(rights['publish'] for rights in others))
    assert operator['subscribe'] <= said


def test_the_file_is_what_the_tools_of_sros2_take():
    text = FILE.read_text(encoding='utf-8')
    root = ElementTree.fromstring(text)
    assert root.tag == 'policy' and root.get('version') == '0.2.0'
    paths = [enclave.get('path') for enclave in root.iter('enclave')]
    nodes = (
        'policy_node', 'arm_node', 'guard_node', 'bringup_node', 'sim', 'replay_node', 'operator',
    )  # fmt: skip
    assert paths == [f'/hbvla/{node}' for node in nodes]
    # They take a comment between enclaves for an enclave without a name.
    assert '<!--' not in text.partition('<policy')[2]
    # A wildcard would allow what nobody has looked at.
    assert '*' not in text.partition('<policy')[2]
    for part in (*root.iter('topics'), *root.iter('services')):
        assert len(part.attrib) == 1 and set(part.attrib) <= set(ATTRIBUTES[part.tag])
        names = [each.text for each in part]
        assert names and len(names) == len(set(names))
        assert {each.tag for each in part} == {part.tag[:-1]}
