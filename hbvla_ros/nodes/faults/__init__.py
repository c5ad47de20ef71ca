# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Drivers, a policy and an audience for rehearsing faults: they fail as they are told to."""
