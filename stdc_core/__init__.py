# SPDX-License-Identifier: Apache-2.0
"""STDC-Seg without ROS: training, evaluation, export and inference.

Rooms, from high to low; a room imports only rooms below it:
``commands``, ``training``, ``export``, ``evaluation``, ``model``, ``data``, ``inference``, ``pictures``, ``io``.
``inference``, ``pictures``, ``io`` and ``classes`` need no torch.
"""

import os

# ONNX Runtime 1.32 records its use in the user's home folder from the moment it is imported, unless this is set.
os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')
