# SPDX-License-Identifier: Apache-2.0
"""Evaluation: confusion matrix, protocol, report and contact sheet.

May import ``model``, ``data``, ``inference``, ``pictures`` and ``io``; torch only in ``torch_predictor``.
"""
