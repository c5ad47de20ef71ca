# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The OpenVLA-OFT network, its checkpoint folders and its input and output transforms."""
