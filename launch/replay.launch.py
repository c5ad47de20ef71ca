# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A recorded bag in the place of a robot: replay_node plus robot.launch.py, until the bag ends."""

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    IncludeLaunchDescription,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

SHARE = FindPackageShare('hbvla_ros')
PARAMETERS = PathJoinSubstitution([SHARE, 'config', 'policy.yaml'])
# Name, default (None: must be given), what it is.
PLAYER_ARGUMENTS = (
    ('bag', None, 'Bag to play: a folder, an .mcap or a .db3 file.'),
    ('cameras', '', "The policy's cameras, separated by commas; empty for all of the profile."),
    ('rate', '1.0', 'Seconds of the bag played a second.'),
)
# Those of robot.launch.py.
ROBOT_ARGUMENTS = (
    ('checkpoint', None, 'Folder of the checkpoint, full precision or quantized.'),
    ('robot', None, 'Robot profile: a name in config/robots or the path of a .yaml.'),
    ('instruction', '', 'Task in words until the bag tells one.'),
    ('platform', '', 'Platform name or .json, for a checkpoint that does not say its own.'),
    ('device', 'cpu', 'Where the network runs, such as cpu or cuda:0.'),
    ('namespace', '', 'Namespace of all nodes and of the relative topics in the profile.'),
    ('use_sim_time', 'true', "Live by the bag's time; false is only for tests."),
    ('params_file', PARAMETERS, 'Parameters of the nodes.'),
    ('autostart', 'true', 'Configure and activate the nodes; false waits for a manager.'),
    ('log_level', 'info', 'Log level of the nodes: debug, info, warn, error or fatal.'),
    ('respawn', 'false', 'Start a node of the robot again when it dies; the player never is.'),
    ('hold_on_loss', 'false', 'Hold as soon as a camera or an arm is lost.'),
    ('wait_for_start', 'false', 'No chunk is made before somebody calls policy_node/start.'),
    ('enclave', '', "Prefix of the nodes' SROS2 enclaves, such as /hbvla; empty for none."),
)


def enclave(name):
    """Arguments that put a node into the enclave ``name`` below the prefix; / is that of none."""
    prefix = LaunchConfiguration('enclave')
    return ['--enclave', PythonExpression(["'", prefix, f"/{name}' if '", prefix, "' else '/'"])]


def generate_launch_description():
    robot = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([SHARE, 'launch', 'robot.launch.py'])),
        launch_arguments=[(name, LaunchConfiguration(name)) for name, _, _ in ROBOT_ARGUMENTS],
    )
    player = Node(
        package='hbvla_ros',
        executable='replay_node',
        name='replay_node',
        namespace=LaunchConfiguration('namespace'),
        parameters=[
            LaunchConfiguration('params_file'),
            {
                'bag': ParameterValue(LaunchConfiguration('bag'), value_type=str),
                'cameras': ParameterValue(LaunchConfiguration('cameras'), value_type=str),
                'rate': ParameterValue(LaunchConfiguration('rate'), value_type=float),
                'robot': ParameterValue(LaunchConfiguration('robot'), value_type=str),
            },
        ],
        arguments=[
            '--ros-args',
            '--log-level',
            LaunchConfiguration('log_level'),
            *enclave('replay_node'),
        ],
        output='screen',
    )
    # Nothing is left to do without the player: the others hold, deactivate and leave.
    ending = RegisterEventHandler(
        OnProcessExit(target_action=player, on_exit=[EmitEvent(event=Shutdown())])
    )
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in (*PLAYER_ARGUMENTS, *ROBOT_ARGUMENTS)
    ]
    return LaunchDescription([*declared, player, ending, robot])
