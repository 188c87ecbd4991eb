# SPDX-License-Identifier: Apache-2.0
"""Evaluate networks: confusion matrix, protocol, report and contact sheet.

May import ``model``, ``data``, ``inference``, ``pictures``, ``io`` and ``classes``; torch only in ``torch_predictor``.
"""
