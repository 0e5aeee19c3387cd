"""One mapper against its reference: first equal, then how fast."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.data import detection_utils as utils
from mask2former.data import build_train_loader, build_train_mapper
from mask2former.data.training_samples import seeded

from ..timing import Rounds, Spread, alternate
from .comparing import first_difference
from .reference import REFERENCES

Record = dict[str, Any]


class ParityError(Exception):
    """A mapper and its reference give different samples."""


class MapperBenchmark:
    """A mapper, its reference and the records both get.

    Attributes:
        samples: pictures that one pass over the records maps.

    Args:
        cfg: names the mapper and one registered training set.
        count: records to use at most.

    Raises:
        ValueError: there is no reference for the mapper.
    """

    def __init__(self, cfg: CfgNode, count: int) -> None:
        self.mapper = build_train_mapper(cfg)
        name = type(self.mapper).__name__
        if name not in REFERENCES:
            raise ValueError(
                f"{name} has no reference to be compared with (mask2former/benchmark/mappers/"
                f"reference.py has {', '.join(REFERENCES)})"
            )
        self._reference = REFERENCES[name]
        records = [r for dataset in cfg.DATASETS.TRAIN for r in DatasetCatalog.get(dataset)]
        # Spread over the set, where it is larger.
        self._records = records[:: max(1, len(records) // count)][:count]
        # Crop sampling makes two samples of a record.
        self.samples = len(self._records) * (2 if "cat_id" in self._records[0] else 1)

    def check_parity(self, draws: int) -> int:
        """Compares all records for several seeds.

        Returns:
            how many samples were equal.

        Raises:
            ParityError: names the file and the first difference.
        """
        for seed in range(draws):
            for number, record in enumerate(self._records):
                results = []
                for run in (self.mapper, self._plain):
                    with seeded(np.random.SeedSequence([seed, number])):
                        results.append(run(record))
                difference = first_difference(*results)
                if difference:
                    raise ParityError(
                        f"{type(self.mapper).__name__} and its reference differ on "
                        f"{record.get('file_name', record)} with seed [{seed}, {number}]: "
                        f"{difference}"
                    )
        return draws * self.samples

    def time(self, rounds: int, warmups: int, after_round: Callable[[], Any]) -> Rounds:
        """Alternates mapper, reference and the mere reading of the files."""
        variants = {
            "mapper": lambda: self._pass_over(self.mapper),
            "reference": lambda: self._pass_over(self._plain),
        }
        if "file_name" in self._records[0]:
            variants["reading"] = lambda: [_read(r, self.mapper.img_format) for r in self._records]
        return alternate(variants, rounds=rounds, warmups=warmups, after_round=after_round)

    def _plain(self, record: Record) -> Record:
        return self._reference(self.mapper, record)

    def _pass_over(self, run: Callable[[Record], Any]) -> None:
        # The same draws for both in every round: a scale of 2 costs more than one of 0.1.
        for number, record in enumerate(self._records):
            with seeded(np.random.SeedSequence([number])):
                run(record)


def _read(record: Record, image_format: str) -> None:
    utils.read_image(record["file_name"], image_format)
    if "sem_seg_file_name" in record:
        utils.read_image(record["sem_seg_file_name"])
    if "pan_seg_file_name" in record:
        utils.read_image(record["pan_seg_file_name"], "RGB")


def loader_throughput(
    cfg: CfgNode, *, batches: int, rounds: int, after_round: Callable[[], Any]
) -> Spread:
    """Samples a second that the training loader of a config delivers, worker start left out."""
    iterator = iter(build_train_loader(cfg))
    per_batch = sum(2 if 0 in item else 1 for item in next(iterator))
    rates = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(batches):
            next(iterator)
        rates.append(batches * per_batch / (time.perf_counter() - start))
        after_round()
    return Spread.of(rates)
