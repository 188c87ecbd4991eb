# SPDX-License-Identifier: Apache-2.0
"""The parts of ``benchmarks/compare.py``, which compares STDC with other networks.

``published`` has the networks and the numbers of the papers. ``measuring`` exports the networks and times them;
``peak_memory`` is a program that it starts. ``training`` trains each network and returns its accuracy. ``report``
writes the tables and the plot.
"""
