# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Tasks: what is placed where, what is asked, when it is done."""
