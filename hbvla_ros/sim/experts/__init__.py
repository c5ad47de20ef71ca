# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Scripted experts that act from the simulator's state."""
