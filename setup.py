# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Installation for pip and for colcon (ament_python)."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = 'hbvla_ros'

# torch is deliberately absent: on a robot it must be the build for that GPU (Jetson wheels, CUDA
# version), which a dependency resolver would overwrite. The Makefile installs it on a desk.
INSTALL_REQUIRES = [
    'numpy>=1.21',
    'pyyaml>=5.4',
    'safetensors>=0.4',
    'tokenizers>=0.15',
    'pillow>=9.0',
    'simplejpeg>=1.7',
    'rich>=12.0',
    'matplotlib>=3.5',
    'jinja2>=3.0',
    # Recorded episodes; images of bags take OpenCV as well, which comes with ROS or from its extra.
    'h5py>=3.6',
    'rosbags>=0.11,<0.12',
    'rosbags-image>=0.10,<0.11',
]
EXTRAS_REQUIRE = {
    # The simulated robot.
    'sim': ['mujoco>=3.4,<4', 'gym-aloha>=0.1.1', 'imageio[ffmpeg]>=2.30'],
    # ROS 2 Jazzy from PyPI, for machines without a ROS installation. The last three lines hold what
    # PyPI's cv_bridge needs beside it.
    'ros': [
        'ros-rclpy[fastrtps]==7.1.6',
        'ros-sensor-msgs==5.3.6',
        'ros-trajectory-msgs==5.3.6',
        'ros-diagnostic-msgs==5.3.6',
        'ros-std-srvs==5.3.6',
        'cv_bridge',
        'numpy<2.3',
        'opencv-python-headless<5',
    ],
    'test': ['pytest>=7,<9', 'hypothesis>=6', 'ruff>=0.8', 'mypy>=1.10', 'types-PyYAML'],
}


def data_files():
    """Everything that is installed below share/: marker, launch files, profiles, policies."""
    share = Path('share') / PACKAGE
    entries = [
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (str(share), ['package.xml', 'QUALITY_DECLARATION.md']),
    ]
    for top in ('launch', 'config', 'models'):
        for folder in sorted({path.parent for path in Path(top).rglob('*') if path.is_file()}):
            if '__pycache__' in folder.parts:
                continue
            files = sorted(str(path) for path in folder.iterdir() if path.is_file())
            entries.append((str(share / folder), files))
    return entries


setup(
    name=PACKAGE,
    version='0.1.0',
    description='1-bit vision-language-action policies on the GPU of a two-arm robot, with ROS 2',
    long_description=Path('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='The hbvla_ros authors',
    maintainer='The hbvla_ros authors',
    maintainer_email='hbvla_ros@users.noreply.example.org',
    license='Apache-2.0',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={PACKAGE: ['py.typed', '*/templates/*.html']},
    data_files=data_files(),
    python_requires='>=3.10,<3.13',
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    zip_safe=True,
    entry_points={
        'console_scripts': [
            'hbvla = hbvla_ros.cli.main:main',
            'policy_node = hbvla_ros.nodes.policy_node:main',
            'arm_node = hbvla_ros.nodes.arm_node:main',
            'guard_node = hbvla_ros.nodes.guard_node:main',
            'bringup_node = hbvla_ros.nodes.bringup_node:main',
            'replay_node = hbvla_ros.nodes.replay_node:main',
            'quantize_node = hbvla_ros.nodes.quantize_node:main',
            'sim_robot_node = hbvla_ros.nodes.sim_robot_node:main',
        ],
    },
)
