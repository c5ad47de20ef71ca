# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Quantize a checkpoint: one node that reports its progress and ends when it is done."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

PARAMETERS = PathJoinSubstitution([FindPackageShare('hbvla_ros'), 'config', 'policy.yaml'])
# Name, type, what it is. Parameters of the node: without a value that of params_file holds, else
# the node's own default.
NODE_ARGUMENTS = (
    ('checkpoint', str, 'Full-precision checkpoint folder.'),
    ('out', str, 'Folder to write.'),
    ('method', str, 'Quantization method, see hbvla quantize --help (signplane).'),
    ('bits', float, 'Sign planes or budget of stored bits; 0 is what the method stores (0.0).'),
    ('preset', str, 'Preset of the method (default).'),
    ('settings', str, 'Options of the method as NAME=VALUE, separated by blanks.'),
    ('platform', str, 'Platform name or .json, where the folder has none.'),
    ('base', str, 'Base model folder, for a LoRA adapter folder.'),
    ('calibration', str, 'Recorded episodes, places with colons between them (none).'),
    ('robot', str, 'Robot profile that names the topics of bags.'),
    ('instruction', str, 'Task in words, for recordings that do not say theirs.'),
    ('frames', int, 'Calibration frames drawn (128).'),
    ('held_out', int, 'Further frames for the action error (16).'),
    ('probe', str, 'Token importance: action, block, parity or none (action).'),
    ('probe_settings', str, 'Options of the probe as NAME=VALUE, separated by blanks.'),
    ('components', str, 'What is quantized, separated by commas (vision,language).'),
    ('device', str, 'Where it computes, such as cpu or cuda:0 (cpu).'),
    ('dtype', str, 'Type of the forward passes: float32 or bfloat16 (float32).'),
    ('refine', int, 'Steps of the refinement after quantization (0).'),
    ('refine_frames', int, 'Frames it draws from (the calibration frames alone).'),
    ('refine_signs', bool, 'Whether it trains the signs as well (false).'),
    (
        'cache_memory',
        float,
        'GB of activations kept in memory; 0: a quarter of what is free (0.0).',
    ),
    ('seed', int, 'Seed of everything random (0).'),
    ('force', bool, 'Replace a deployed folder that is already there (false).'),
    ('resume', bool, 'Go on after the last finished layer of an interrupted run (false).'),
    ('autostart', bool, 'Begin at once; false waits for the service ~/start (true).'),
    ('use_sim_time', bool, 'Take stamps from /clock instead of the system (false).'),
)
# Name, default, what it is.
OTHER_ARGUMENTS = (
    ('namespace', '', 'Namespace of the node.'),
    ('params_file', PARAMETERS, 'Parameters of the node; arguments with a value win.'),
    ('log_level', 'info', 'Log level of the node: debug, info, warn, error or fatal.'),
    ('respawn', 'false', 'Start the node again when it fails; set resume as well.'),
)


def make_node(context):
    """The node with those arguments as parameters that have a value."""
    values = {name: LaunchConfiguration(name).perform(context) for name, _, _ in NODE_ARGUMENTS}
    parameters = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, kind, _ in NODE_ARGUMENTS
        if values[name]
    }
    return [
        Node(
            package='hbvla_ros',
            executable='quantize_node',
            name='quantize_node',
            namespace=LaunchConfiguration('namespace'),
            parameters=[LaunchConfiguration('params_file'), *([parameters] if parameters else [])],
            arguments=['--ros-args', '--log-level', LaunchConfiguration('log_level')],
            respawn=LaunchConfiguration('respawn'),
            respawn_delay=2.0,
            output='screen',
        )
    ]


def generate_launch_description():
    arguments = [(name, '', text) for name, _, text in NODE_ARGUMENTS] + list(OTHER_ARGUMENTS)
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in arguments
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=make_node)])
