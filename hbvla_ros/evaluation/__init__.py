# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Closed-loop evaluation, statistics, plots and reports."""
