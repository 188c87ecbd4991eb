# SPDX-License-Identifier: Apache-2.0
"""Results of a replayed drive: numbers, a contact sheet, a video and a bag."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from stdc_core.evaluation.metrics import ConfusionMatrix
from stdc_core.inference.model_file import ModelInfo
from stdc_core.io.files import write_png
from stdc_core.pictures.overlay import colorize
from stdc_ros.bags.writer import write_bag
from stdc_ros.messages.cdr import IMAGE, TYPES
from stdc_ros.messages.images import image_to_bgr
from stdc_ros.playback.demo_pictures import contact_sheet, write_video
from stdc_ros.playback.recorder import Entry, Recorder

MASK = '/segmentation/mask'
OVERLAY = '/segmentation/overlay'

#: Number of frames in the contact sheet.
SHEET = 4


class Drive:
    """Replayed drive: the images that were published, and the masks and overlays that came back.

    Args:
        camera: Image topic.
        info: Description of the model.
        recorder: Recorder of the images on ``camera`` and of the outputs on :data:`MASK` and :data:`OVERLAY`.
        labels: True class ids of every image, uint8 ``[H, W]``; None if they are unknown.
        camera_infos: ``sensor_msgs/CameraInfo`` of each image; a single one counts for all; empty if there is none.
    """

    def __init__(
        self,
        camera: str,
        info: ModelInfo,
        recorder: Recorder,
        labels: list[np.ndarray] | None,
        camera_infos: list[Any],
    ):
        self.camera = camera
        self.classes = info.classes
        self._model = info.summary
        self.recorder = recorder
        self._labels = labels
        self._camera_infos = camera_infos

    def _message(self, entry: Entry) -> Any:
        return TYPES.deserialize_cdr(self.recorder.data(entry), IMAGE)

    def _mask(self, entry: Entry) -> np.ndarray:
        message = self._message(entry)
        return message.data.reshape(message.height, message.width)

    @cached_property
    def _complete(self) -> list[tuple[Entry, Entry, Entry]]:
        """Image, mask and overlay of each frame that was published with both outputs."""
        masks = {entry.stamp: entry for entry in self.recorder.entries_on(MASK)}
        overlays = {entry.stamp: entry for entry in self.recorder.entries_on(OVERLAY)}
        return [
            (image, masks[image.stamp], overlays[image.stamp])
            for image in self.recorder.entries_on(self.camera)
            if image.stamp in masks and image.stamp in overlays
        ]

    @cached_property
    def _confusion(self) -> ConfusionMatrix | None:
        if self._labels is None:
            return None
        truth = {
            image.stamp: label for image, label in zip(self.recorder.entries_on(self.camera), self._labels, strict=True)
        }
        matrix = ConfusionMatrix(len(self.classes))
        for entry in self.recorder.entries_on(MASK):
            matrix.update(self._mask(entry), truth[entry.stamp])
        return matrix

    def summary(self) -> str:
        """Return frame counts, latency and, with known labels, the mIoU as text. Call :meth:`save` first."""
        return '\n'.join(self._lines)

    def _measure(self) -> list[str]:
        sent, masks = len(self.recorder.entries_on(self.camera)), self.recorder.entries_on(MASK)
        latency = [(entry.arrival - entry.stamp) / 1e6 for entry in masks]
        p50, p95, p99 = np.percentile(latency, (50, 95, 99))
        lines = [
            f'frames   {sent} in, {len(masks)} out, {sent - len(masks)} dropped (the newest frame wins)',
            f'latency  p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms from camera stamp to mask received',
            '         (images are stamped when they are published)',
        ]
        if self._confusion:
            lines.append(f'mIoU     {100 * self._confusion.miou():.1f} % against the labels of the rendered drive')
            scores = [
                f'{name} {100 * iou:.0f}'
                for name, iou in zip(self.classes.names, self._confusion.iou(), strict=True)
                if np.isfinite(iou)
            ]
            lines += [f'         {", ".join(scores[i : i + 6])}' for i in range(0, len(scores), 6)]
        return lines

    def save(self, folder: Path, title: str) -> list[Path]:
        """Write ``contact_sheet.png``, ``drive.webm`` and ``drive.mcap``.

        Sheet and video need at least one frame with mask and overlay.

        Args:
            folder: Folder for the files.
            title: Title of the contact sheet.

        Returns:
            Paths of the files that were written.

        Raises:
            BagError, OSError: A file cannot be written.
        """
        self._lines = self._measure()
        made = [folder / name for name in ('contact_sheet.png', 'drive.webm', 'drive.mcap')]
        if self._complete:
            write_png(made[0], self._sheet(title))
            write_video(made[1], self._pictures(), self._rate())
        self._write_bag(made[2])
        return [path for path in made if path.exists()]

    def _sheet(self, title: str) -> np.ndarray:
        begin = self._complete[0][0].stamp
        chosen = np.linspace(0, len(self._complete) - 1, 2 * SHEET + 1).round().astype(int)[1::2]
        rows = []
        for image, mask, overlay in (self._complete[i] for i in dict.fromkeys(chosen.tolist())):
            caption = f't = {(image.stamp - begin) / 1e9:.1f} s'
            photo, drawn = image_to_bgr(self._message(image)), image_to_bgr(self._message(overlay))
            rows.append((caption, photo, drawn, colorize(self._mask(mask), self.classes)))
        score = f', {100 * self._confusion.miou():.1f} % mIoU' if self._confusion else ''
        return contact_sheet(rows, self.classes, title + score)

    def _pictures(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for image, _, overlay in tqdm(self._complete, desc='Writing the video', unit='frame'):
            yield image_to_bgr(self._message(image)), image_to_bgr(self._message(overlay))

    def _rate(self) -> float:
        first, last = self._complete[0][0].stamp, self._complete[-1][0].stamp
        return float(np.clip((len(self._complete) - 1) * 1e9 / max(last - first, 1), 1, 60))

    def _write_bag(self, path: Path) -> None:
        info_topic = self.camera.rpartition('/')[0] + '/camera_info'
        with write_bag(path) as bag:
            bag.set_classes(self.classes, self._model)
            for topic in (self.camera, MASK, OVERLAY):
                bag.add_topic(topic, IMAGE)
            if self._camera_infos:
                bag.add_topic(info_topic, self._camera_infos[0].__msgtype__)
            infos = chain(self._camera_infos, repeat(self._camera_infos[-1])) if self._camera_infos else repeat(None)
            entries = sorted(self.recorder.entries, key=lambda entry: entry.arrival)
            for entry in tqdm(entries, desc='Writing the bag', unit='message'):
                if entry.topic == self.camera and (info := next(infos)):
                    info.header = self._message(entry).header
                    bag.write(info_topic, entry.arrival, info)
                bag.write_cdr(entry.topic, entry.arrival, self.recorder.data(entry))
