# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Guard, arms and policy on a robot; the drivers and cameras that its profile names must be up."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

PARAMETERS = PathJoinSubstitution([FindPackageShare('hbvla_ros'), 'config', 'policy.yaml'])
# Name, default (None: must be given), what it is.
ARGUMENTS = (
    ('checkpoint', None, 'Folder of the checkpoint, full precision or quantized.'),
    ('robot', None, 'Robot profile: a name in config/robots or the path of a .yaml.'),
    ('instruction', '', 'Task in words; empty waits for one on the topic instruction.'),
    ('platform', '', 'Platform name or .json, for a checkpoint that does not say its own.'),
    ('device', 'cpu', 'Where the network runs, such as cpu or cuda:0.'),
    ('namespace', '', 'Namespace of all nodes and of the relative topics in the profile.'),
    ('use_sim_time', 'false', 'Take time from /clock instead of the system.'),
    ('params_file', PARAMETERS, 'Parameters of the nodes.'),
    (
        'autostart',
        'true',
        'Configure and activate the nodes; false waits for bringup_node/start or your manager.',
    ),
    ('log_level', 'info', 'Log level of the nodes: debug, info, warn, error or fatal.'),
    ('respawn', 'false', 'Start a node again when it dies.'),
    # Both win over params_file: on a robot the cautious value holds unless it is given up here.
    (
        'hold_on_loss',
        'true',
        'Hold as soon as a camera or an arm is lost; false lets the present chunk end.',
    ),
    (
        'wait_for_start',
        'true',
        'Nothing moves before somebody calls policy_node/start; false goes on by itself.',
    ),
    ('enclave', '', "Prefix of the nodes' SROS2 enclaves, such as /hbvla; empty for none."),
)


def text(argument):
    """A launch argument as a string parameter, also when it looks like a number."""
    return ParameterValue(LaunchConfiguration(argument), value_type=str)


def truth(argument):
    """A launch argument as a parameter that is true or false."""
    return ParameterValue(LaunchConfiguration(argument), value_type=bool)


def enclave(name):
    """Arguments that put a node into the enclave ``name`` below the prefix; / is that of none."""
    prefix = LaunchConfiguration('enclave')
    return ['--enclave', PythonExpression(["'", prefix, f"/{name}' if '", prefix, "' else '/'"])]


def node(name, **parameters):
    """One of our nodes with what all of them share."""
    return Node(
        package='hbvla_ros',
        executable=name,
        name=name,
        namespace=LaunchConfiguration('namespace'),
        parameters=[
            LaunchConfiguration('params_file'),
            {'use_sim_time': truth('use_sim_time'), **parameters},
        ],
        arguments=['--ros-args', '--log-level', LaunchConfiguration('log_level'), *enclave(name)],
        respawn=LaunchConfiguration('respawn'),
        respawn_delay=2.0,
        output='screen',
    )


def managed_node(name, **parameters):
    """A lifecycle node; bringup_node moves it, and nothing else does.

    Not launch's own action for such nodes: it makes a node in the launch process, which with
    security would need an enclave as well.
    """
    return node(name, robot=text('robot'), autostart=False, **parameters)


def generate_launch_description():
    policy = {name: text(name) for name in ('checkpoint', 'instruction', 'platform', 'device')}
    policy |= {name: truth(name) for name in ('hold_on_loss', 'wait_for_start')}
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, default, description in ARGUMENTS
            ),
            # First, so that it watches before there is anything to watch.
            node('guard_node', robot=text('robot')),
            managed_node('arm_node', require_guard=True),
            managed_node('policy_node', **policy),
            node('bringup_node', autostart=truth('autostart')),
        ]
    )
