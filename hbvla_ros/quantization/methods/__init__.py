# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""One module a method: ``(weight, hessian, options) -> QuantizedLayer``."""
