# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Public benchmark suites, driven through their own packages with OpenVLA-OFT's conventions."""
