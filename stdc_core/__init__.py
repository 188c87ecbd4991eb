# SPDX-License-Identifier: Apache-2.0
"""Train, evaluate, export and run STDC-Seg, without ROS.

Rooms, from high to low (a room imports only rooms below it):
``commands``, ``training``, ``export``, ``evaluation``, ``model``, ``data``, ``inference``, ``pictures``, ``io``.
``inference``, ``pictures``, ``io`` and ``classes`` need no torch.
"""

import os

# Without this, ONNX Runtime 1.32 writes a record of its use to the home folder as soon as it is imported.
os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')
