# SPDX-License-Identifier: Apache-2.0
"""Subcommand ``stdc render``: render synthetic drives as a labelled dataset."""

from __future__ import annotations

import argparse
from pathlib import Path

from stdc_core.commands.arguments import image_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``stdc render``."""
    from stdc_core.data.synthetic import SCENES, WEATHER

    parser.epilog = 'Images go to OUT/SPLIT/images, labels to OUT/SPLIT/labels.'
    parser.add_argument('out', type=Path, help='folder to create or add to')
    parser.add_argument('--split', default='train', help='name of the split (default: train)')
    parser.add_argument('--drives', type=int, default=60, help='number of drives (default: 60)')
    parser.add_argument('--seed', type=int, default=1000, help='seed of the first drive (default: 1000)')
    parser.add_argument('--frames', type=int, default=12, help='number of frames to keep of each drive (default: 12)')
    parser.add_argument('--every', type=int, default=25, help='keep every n-th frame of a drive (default: 25)')
    parser.add_argument(
        '--scene',
        nargs='+',
        default=['town'],
        metavar='NAME',
        help=f'kinds of street, which take turns from drive to drive: {", ".join(SCENES)} (default: town)',
    )
    parser.add_argument(
        '--weather',
        nargs='+',
        metavar='NAME',
        help=f'weathers, which take turns after all scenes: {", ".join(WEATHER)} (default: drawn by the seed)',
    )
    parser.add_argument(
        '--size', type=image_size, default=(360, 480), metavar='HxW', help='size of the images (default: 360x480)'
    )


def run(options: argparse.Namespace) -> None:
    """Render the drives.

    Raises:
        ValueError: A number is below 1, or a scene or a weather does not exist.
        FileExistsError: One of the files exists.
    """
    from tqdm import tqdm

    from stdc_core.data.synthetic import SCENES, WEATHER, SyntheticDrive
    from stdc_core.io.files import write_png

    for name in ('drives', 'frames', 'every'):
        if getattr(options, name) < 1:
            raise ValueError(f'--{name}: expected 1 or more, found {getattr(options, name)}')
    for name, known in (('scene', SCENES), ('weather', WEATHER)):
        for found in getattr(options, name) or ():
            if found not in known:
                raise ValueError(f'--{name}: expected {", ".join(known)}, found {found!r}')
    folders = [options.out / options.split / name for name in ('images', 'labels')]
    height, width = options.size
    length = options.frames * options.every
    weathers = options.weather or [None]
    for k in tqdm(range(options.drives), unit='drive', disable=None):
        seed, scene = options.seed + k, options.scene[k % len(options.scene)]
        # The weather changes when all scenes have had their turn, so that each scene meets each weather.
        weather = weathers[k // len(options.scene) % len(weathers)]
        drive = SyntheticDrive(seed=seed, height=height, width=width, frames=length, scene=scene, weather=weather)
        name = 'drive' if scene == 'town' else scene
        for index in range(0, length, options.every):
            frame = drive[index]
            for folder, picture in zip(folders, (frame.image, frame.label), strict=True):
                path = folder / f'{name}{seed:05d}_{index:05d}.png'
                if path.exists():
                    raise FileExistsError(f'{path} exists; choose another folder, split or --seed')
                write_png(path, picture)
