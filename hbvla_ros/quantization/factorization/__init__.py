# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Pieces of double binary factorization (spec section 5)."""
