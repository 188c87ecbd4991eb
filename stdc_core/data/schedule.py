# SPDX-License-Identifier: Apache-2.0
"""Which samples make up which batch: from the seed and the step alone, so that a run resumes with no state saved."""

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
    """What a dataset is here; ``SegmentationFolder`` is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class SampleKey(NamedTuple):
    """Name one sample of a run and how it is changed.

    Args:
        dataset: Number of the dataset.
        sample: Number of the sample in it.
        seed: Seed of ``np.random.default_rng`` for the augmentation.
    """

    dataset: int
    sample: int
    seed: int


def dataset_shares(
    own: Sequence[int], extra: Sequence[int] = (), shares: Sequence[float | None] = (), pool_share: float = 0.0
) -> list[float]:
    """Return the share of the samples that each dataset supplies.

    An extra dataset with a share of its own supplies that. The others form a pool that supplies ``pool_share``, and
    the own datasets a pool that supplies the rest. Within a pool, a dataset counts by its size.

    Args:
        own: Number of samples of each own dataset.
        extra: Number of samples of each extra dataset.
        shares: Share of each extra dataset, 0 to 1, or None for one of the pool. Empty: all are of the pool.
        pool_share: Share that the extra datasets of the pool supply together, 0 to 1.

    Returns:
        Shares of ``own``, then those of ``extra``.

    Raises:
        ValueError: The shares are more than 1 together, or a dataset or pool has a share, but no samples.
    """
    shares = shares or [None] * len(extra)
    fixed = sum(share for share in shares if share is not None)
    rest = 1 - fixed - pool_share
    # The sum of ten shares of 0.1 is a little more than 1.
    if rest < -1e-9:
        raise ValueError(f'expected extra datasets to supply at most 1 of the samples, found {fixed + pool_share:g}')
    pool = [size for size, share in zip(extra, shares, strict=True) if share is None]
    for sizes, share in ((own, max(rest, 0.0)), (pool, pool_share)):
        if share and not sum(sizes):
            raise ValueError(f'a share of {share:g} of the samples is asked of datasets that have none')
    return [max(rest, 0.0) * size / max(sum(own), 1) for size in own] + [
        pool_share * size / max(sum(pool), 1) if share is None else share
        for size, share in zip(extra, shares, strict=True)
    ]


class BatchSchedule:
    """The samples of every global batch of a run.

    Each dataset is gone through in a random order that is new for each epoch, so that every sample comes once an epoch
    of its dataset. The datasets alternate evenly: among the first n samples of a run, each has its share of n to within
    as many samples as there are datasets.

    Args:
        sizes: number of samples of each dataset.
        shares: share of each dataset, in any unit; None: in proportion to the sizes, as if they were one.
        batch_size: samples of a step, over all ranks.
        seed: not negative.

    Raises:
        ValueError: sizes and shares do not go together, or a number is out of its range.
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
        # Each dataset's part of what the datasets before it leave over. Fractions count exactly, however long the run.
        exact = [Fraction(share) for share in shares]
        self._parts = [share / (sum(exact[i:]) or 1) for i, share in enumerate(exact)]
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    def batch(self, step: int, rank: int = 0, world: int = 1) -> list[SampleKey]:
        """The part of one rank, out of ``world``, of the batch of a step; both count from 0.

        The ranks' parts in their order are the batch of a single process.

        Raises:
            ValueError: the batch cannot be divided evenly among the ranks, or there is no such rank.
        """
        if self.batch_size % world or not 0 <= rank < world:
            raise ValueError(f'a batch of {self.batch_size} has no equal part for rank {rank} of {world}')
        count = self.batch_size // world
        first = step * self.batch_size + rank * count
        return [self._sample(number) for number in range(first, first + count)]

    def _sample(self, number: int) -> SampleKey:
        """Sample ``number``, from 0, of the run."""
        remaining = number
        for dataset, part in enumerate(self._parts):
            drawn = remaining * part.numerator // part.denominator
            if (remaining + 1) * part.numerator // part.denominator > drawn:
                return SampleKey(dataset, self._shuffled(dataset, drawn), (self.seed << 48) + number)
            remaining -= drawn
        raise AssertionError('the last dataset with a share takes all that is left')

    def _shuffled(self, dataset: int, drawn: int) -> int:
        """Index of the sample that follows the first ``drawn`` of a dataset."""
        epoch, position = divmod(drawn, self.sizes[dataset])
        if self._orders.get(dataset, (None,))[0] != epoch:
            order = np.random.default_rng([self.seed, dataset, epoch]).permutation(self.sizes[dataset])
            self._orders[dataset] = (epoch, order)
        return int(self._orders[dataset][1][position])


class ScheduleSampler:
    """Batch sampler of a `DataLoader` over `AugmentedSamples`: yields the keys of each batch.

    Args:
        schedule: the run's batches.
        steps: length of the whole run.
        start: step to begin with; above 0 in a run that is resumed.
        rank, world: the part of each batch that is this process's.

    ``len()`` is ``steps`` wherever it starts: Lightning counts a resumed epoch from its beginning.
    """

    def __init__(self, schedule: BatchSchedule, steps: int, start: int = 0, rank: int = 0, world: int = 1):
        self.schedule, self.steps, self.start, self.rank, self.world = schedule, steps, start, rank, world

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for step in range(self.start, self.steps):
            yield self.schedule.batch(step, self.rank, self.world)


class AugmentedSamples(Dataset):
    """Map-style dataset of random crops, addressed by `SampleKey`: the same crop for the same key, in any worker.

    Args:
        datasets: where a key's first number leads.
        augmentation: what is done to each sample.
        cache: read and keep every decoded sample now. Workers that are forked share it.
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
        """Return a crop: uint8 BGR ``[h, w, 3]``, uint8 ids ``[h, w]`` and, with a teacher, uint8 ``[C, h/4, w/4]``."""
        dataset, index, seed = key
        sample, rng = self._datasets[dataset][index], np.random.default_rng(seed)
        size = (sample.label.shape[0], sample.label.shape[1])
        matrix = self._augmentation.placement(size, rng)
        crop = self._augmentation.apply(sample.image, sample.label, matrix, rng)
        if self._soft is None:
            return crop
        return *crop, self._soft.crop(dataset, index, size, matrix, self._augmentation.crop)


def read_all(datasets: Sequence[Samples]) -> Iterator[tuple[int, Sample]]:
    """Every sample, with its dataset's number, in order; read by a thread per core and with a progress bar."""
    keys = [(number, index) for number, dataset in enumerate(datasets) for index in range(len(dataset))]
    with ThreadPoolExecutor(cores()) as threads:
        samples = threads.map(lambda key: datasets[key[0]][key[1]], keys)
        progress = tqdm(zip(keys, samples, strict=True), 'reading', len(keys), unit='image', disable=None)
        for (number, _), sample in progress:
            yield number, sample
