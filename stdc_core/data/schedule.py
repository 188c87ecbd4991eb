# SPDX-License-Identifier: Apache-2.0
"""Choose the samples of each batch from the seed and the step alone, so that a run resumes without a saved state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import NamedTuple, Protocol

import numpy as np
from torch.utils.data import Dataset
from tqdm import tqdm

from stdc_core.data.augment import Augmentation
from stdc_core.data.folder import Sample
from stdc_core.data.soft_targets import SoftTargets
from stdc_core.io.cpu import cores


class Samples(Protocol):
    """Indexable samples, such as a ``SegmentationFolder``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class SampleKey(NamedTuple):
    """Key of a sample in a run, with the seed of its random changes.

    Args:
        dataset: Number of the dataset.
        sample: Number of the sample in the dataset.
        seed: Seed of ``np.random.default_rng`` for the augmentation.
    """

    dataset: int
    sample: int
    seed: int


def dataset_shares(
    own: Sequence[int], extra: Sequence[int] = (), shares: Sequence[float | None] = (), pool_share: float = 0.0
) -> list[float]:
    """Return the share of the samples that each dataset supplies.

    An extra dataset with a share of its own supplies that share. The other extra datasets form a pool that supplies
    ``pool_share``, and the own datasets form a pool that supplies the rest. Within a pool, shares follow the sizes.

    Args:
        own: Number of samples of each own dataset.
        extra: Number of samples of each extra dataset.
        shares: Share of each extra dataset, 0 to 1, or None for one in the pool. If empty, all are in the pool.
        pool_share: Share that the extra datasets in the pool supply together, 0 to 1.

    Returns:
        Shares of ``own``, then those of ``extra``.

    Raises:
        ValueError: The sum of the shares is above 1, or a dataset or pool has a share, but no samples.
    """
    shares = shares or [None] * len(extra)
    fixed = sum(share for share in shares if share is not None)
    rest = 1 - fixed - pool_share
    # Ten shares of 0.1 add up to a little more than 1.
    if rest < -1e-9:
        raise ValueError(f'expected extra datasets to supply at most 1 of the samples, found {fixed + pool_share:g}')
    pool = [size for size, share in zip(extra, shares, strict=True) if share is None]
    for sizes, share in ((own, max(rest, 0.0)), (pool, pool_share)):
        if share and not sum(sizes):
            raise ValueError(f'a share of {share:g} of the samples was given to datasets without samples')
    return [max(rest, 0.0) * size / max(sum(own), 1) for size in own] + [
        pool_share * size / max(sum(pool), 1) if share is None else share
        for size, share in zip(extra, shares, strict=True)
    ]


class BatchSchedule:
    """Samples of every global batch of a run.

    Each epoch of a dataset has its own random order, in which every sample comes once. The datasets alternate evenly:
    among the first n samples of a run, the number from each dataset differs from its share of n by at most the number
    of datasets.

    Args:
        sizes: Number of samples of each dataset.
        shares: Share of each dataset, in any unit; None takes the sizes, as if the datasets were one.
        batch_size: Number of samples in a step, on all ranks together.
        seed: Seed, 0 or more.

    Raises:
        ValueError: Sizes and shares do not fit together, or a number is out of its range.
    """

    def __init__(self, sizes: Sequence[int], shares: Sequence[float] | None, batch_size: int, seed: int = 0):
        shares = list(sizes if shares is None else shares)
        if len(sizes) != len(shares):
            raise ValueError(f'{len(sizes)} datasets, but {len(shares)} shares')
        if min(shares, default=0) < 0 or not sum(shares) > 0:
            raise ValueError(f'expected shares of 0 or more and one above it, found {shares}')
        if any(share and not size for size, share in zip(sizes, shares, strict=True)):
            raise ValueError(f'a dataset without samples has a share: sizes {list(sizes)}, shares {shares}')
        if batch_size < 1 or seed < 0:
            raise ValueError(f'expected a batch size above 0 and a seed of 0 or more, found {batch_size} and {seed}')
        self.sizes, self.batch_size, self.seed = list(sizes), batch_size, seed
        # Part that each dataset takes of what the datasets before it leave. Fractions are exact for runs of any length.
        exact = [Fraction(share) for share in shares]
        self._parts = [share / (sum(exact[i:]) or 1) for i, share in enumerate(exact)]
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    def batch(self, step: int, rank: int = 0, world: int = 1) -> list[SampleKey]:
        """Return the part of a batch that belongs to one rank.

        The parts of all ranks, in their order, are the batch of a single process.

        Args:
            step: Number of the step, from 0.
            rank: Number of the rank, from 0.
            world: Number of ranks.

        Raises:
            ValueError: The batch cannot be divided evenly among the ranks, or the rank does not exist.
        """
        if self.batch_size % world or not 0 <= rank < world:
            raise ValueError(f'a batch of {self.batch_size} has no equal part for rank {rank} of {world}')
        count = self.batch_size // world
        first = step * self.batch_size + rank * count
        return [self._sample(number) for number in range(first, first + count)]

    def _sample(self, number: int) -> SampleKey:
        """Return the key of a sample.

        Args:
            number: Number of the sample in the run, from 0.
        """
        remaining = number
        for dataset, part in enumerate(self._parts):
            drawn = remaining * part.numerator // part.denominator
            if (remaining + 1) * part.numerator // part.denominator > drawn:
                return SampleKey(dataset, self._shuffled(dataset, drawn), (self.seed << 48) + number)
            remaining -= drawn
        raise AssertionError('the last dataset with a share takes everything that is left')

    def _shuffled(self, dataset: int, drawn: int) -> int:
        """Return the index of the sample that comes after the first ``drawn`` samples of a dataset."""
        epoch, position = divmod(drawn, self.sizes[dataset])
        if self._orders.get(dataset, (None,))[0] != epoch:
            order = np.random.default_rng([self.seed, dataset, epoch]).permutation(self.sizes[dataset])
            self._orders[dataset] = (epoch, order)
        return int(self._orders[dataset][1][position])


class ScheduleSampler:
    """Yields the keys of each batch, as batch sampler of a ``DataLoader`` over ``AugmentedSamples``.

    Its length is ``steps`` even if it starts later, because Lightning counts a resumed epoch from its beginning.

    Args:
        schedule: Batches of the run.
        steps: Number of steps of the whole run.
        start: Step to begin with; above 0 in a resumed run.
        rank: Rank of this process.
        world: Number of ranks.
    """

    def __init__(self, schedule: BatchSchedule, steps: int, start: int = 0, rank: int = 0, world: int = 1):
        self.schedule, self.steps, self.start, self.rank, self.world = schedule, steps, start, rank, world

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for step in range(self.start, self.steps):
            yield self.schedule.batch(step, self.rank, self.world)


class AugmentedSamples(Dataset):
    """Random crops, addressed by ``SampleKey``. A key gives the same crop in any worker.

    Args:
        datasets: Datasets that keys refer to.
        augmentation: Random changes of each sample.
        cache: Whether to read and keep all samples now. Forked workers share them.
        soft: Probabilities of a teacher for every sample, or None.
    """

    def __init__(
        self,
        datasets: Sequence[Samples],
        augmentation: Augmentation,
        cache: bool = False,
        soft: SoftTargets | None = None,
    ):
        self._soft = soft
        self._datasets = list(datasets)
        self._augmentation = augmentation
        if cache:
            cached: list[list[Sample]] = [[] for _ in datasets]
            for number, sample in read_all(datasets):
                cached[number].append(sample)
            self._datasets = list(cached)

    def __len__(self) -> int:
        return sum(map(len, self._datasets))

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[np.ndarray, ...]:
        """Return a crop.

        Returns:
            uint8 BGR ``[h, w, 3]``, uint8 ids ``[h, w]`` and, with a teacher, its probabilities, uint8
            ``[C, ceil(h/4), ceil(w/4)]``.
        """
        dataset, index, seed = key
        sample, rng = self._datasets[dataset][index], np.random.default_rng(seed)
        size = (sample.label.shape[0], sample.label.shape[1])
        matrix = self._augmentation.placement(size, rng)
        crop = self._augmentation.apply(sample.image, sample.label, matrix, rng)
        if self._soft is None:
            return crop
        return *crop, self._soft.crop(dataset, index, size, matrix, self._augmentation.crop)


def read_all(datasets: Sequence[Samples]) -> Iterator[tuple[int, Sample]]:
    """Read all samples with a thread per core and a progress bar, and yield them in order.

    Each comes with the number of its dataset.

    Args:
        datasets: Datasets to read.
    """
    keys = [(number, index) for number, dataset in enumerate(datasets) for index in range(len(dataset))]
    with ThreadPoolExecutor(cores()) as threads:
        samples = threads.map(lambda key: datasets[key[0]][key[1]], keys)
        progress = tqdm(zip(keys, samples, strict=True), 'reading', len(keys), unit='image', disable=None)
        for (number, _), sample in progress:
            yield number, sample
