# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Behaviour cloning of a small policy on simulated demonstrations."""
