# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The simulated two-arm robot with all of robot.launch.py: guard, arms and policy."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

SHARE = FindPackageShare('hbvla_ros')
PARAMETERS = PathJoinSubstitution([SHARE, 'config', 'policy.yaml'])
POLICY = PathJoinSubstitution([SHARE, 'models', 'aloha_sim_small'])
# Name, default, what it is.
ARGUMENTS = (
    ('checkpoint', POLICY, 'Folder of the checkpoint, full precision or quantized.'),
    ('robot', 'aloha_sim', 'Robot profile of the simulated robot.'),
    ('instruction', '', "Task in words until the simulator gives the episode's own."),
    ('seed', '0', 'Seed of the first episode.'),
    ('platform', '', 'Platform name or .json, for a checkpoint that does not say its own.'),
    ('device', 'cpu', 'Where the network runs, such as cpu or cuda:0.'),
    ('namespace', '', 'Namespace of all nodes and of the relative topics in the profile.'),
    ('use_sim_time', 'true', 'Take time from the simulator; false is only for tests.'),
    ('params_file', PARAMETERS, 'Parameters of the nodes.'),
    (
        'autostart',
        'true',
        'Configure and activate the nodes; false waits for bringup_node/start or your manager.',
    ),
    ('log_level', 'info', 'Log level of the nodes: debug, info, warn, error or fatal.'),
    ('respawn', 'false', 'Start a node again when it dies.'),
    ('hold_on_loss', 'false', 'Hold as soon as a camera or an arm is lost.'),
    ('wait_for_start', 'false', 'Nothing moves before somebody calls policy_node/start.'),
    ('enclave', '', "Prefix of the nodes' SROS2 enclaves, such as /hbvla; empty for none."),
)


def enclave(name):
    """Arguments that put a node into the enclave ``name`` below the prefix; / is that of none."""
    prefix = LaunchConfiguration('enclave')
    return ['--enclave', PythonExpression(["'", prefix, f"/{name}' if '", prefix, "' else '/'"])]


def generate_launch_description():
    robot = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([SHARE, 'launch', 'robot.launch.py'])),
        launch_arguments=[
            (name, LaunchConfiguration(name)) for name, _, _ in ARGUMENTS if name != 'seed'
        ],
    )
    simulator = Node(
        package='hbvla_ros',
        executable='sim_robot_node',
        name='sim_robot_node',
        namespace=LaunchConfiguration('namespace'),
        parameters=[
            LaunchConfiguration('params_file'),
            {
                'robot': ParameterValue(LaunchConfiguration('robot'), value_type=str),
                'seed': ParameterValue(LaunchConfiguration('seed'), value_type=int),
            },
        ],
        arguments=['--ros-args', '--log-level', LaunchConfiguration('log_level'), *enclave('sim')],
        respawn=LaunchConfiguration('respawn'),
        respawn_delay=2.0,
        output='screen',
    )
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in ARGUMENTS
    ]
    return LaunchDescription([*declared, simulator, robot])
