# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Bimanual ALOHA in MuJoCo: scene, tasks, scripted experts, demonstrations."""
