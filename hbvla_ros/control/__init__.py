# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Robot profile, chunk clock, safety stage and latency tracker: numpy only."""
