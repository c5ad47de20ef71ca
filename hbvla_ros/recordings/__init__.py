# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Recorded episodes as the observations a policy would have been given."""
