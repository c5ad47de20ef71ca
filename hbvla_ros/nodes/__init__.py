# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""ROS 2 nodes: the only place that imports rclpy."""
