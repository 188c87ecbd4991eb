# SPDX-License-Identifier: Apache-2.0
"""The parts of ``benchmarks/gpu.py``, which compares the GPU libraries with each other.

``plan`` says what is measured. ``workload`` makes models and frames. ``worker`` runs one library in a process of its
own, with ``engine_runner``, ``onnxruntime_runner`` or ``pytorch_runner``. ``process`` starts and asks the workers,
``measuring`` lets them take turns, ``first_mask`` times a start from nothing, ``report`` and ``targets`` print.
"""
