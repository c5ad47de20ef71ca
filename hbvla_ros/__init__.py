# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Quantize a vision-language-action policy to about one bit and run it on a robot with ROS 2."""

__version__ = '0.1.0'
