"""Mistakes of known size, made in perfect predictions (see perfect.py) in place."""

from collections import Counter

import numpy as np

from .perfect import Prediction


def count(truth: list[Prediction], kind: str) -> Counter:
    """Segments or instances of each class over all images."""
    return Counter(entry["category_id"] for p in truth for entry in p[kind])


def only_one(truth: list[Prediction], kind: str) -> int:
    """The lowest class of which there is just one in all images."""
    return min(c for c, n in count(truth, kind).items() if n == 1)


def drop(predictions: list[Prediction], kind: str, category: int) -> None:
    """Forgets the first segment or instance of a class."""
    prediction = next(p for p in predictions if _has(p, kind, category))
    entries = prediction[kind]
    del entries[[e["category_id"] for e in entries].index(category)]


def cut(predictions: list[Prediction], kind: str, category: int, keep: float) -> None:
    """Leaves only the first share ``keep`` of the pixels of the first entry of a class."""
    prediction = next(p for p in predictions if _has(p, kind, category))
    entry = next(e for e in prediction[kind] if e["category_id"] == category)
    entry["mask"] = cut_mask(entry["mask"], keep)


def cut_mask(mask: np.ndarray, keep: float) -> np.ndarray:
    """The first ``int(keep * area)`` pixels of a mask, row by row."""
    pixels = np.flatnonzero(mask)
    out = np.zeros(mask.size, bool)
    out[pixels[: int(keep * len(pixels))]] = True
    return out.reshape(mask.shape)


def rename(predictions: list[Prediction], kind: str, category: int, new: int) -> None:
    """Calls the first entry of a class by another name."""
    prediction = next(p for p in predictions if _has(p, kind, category))
    next(e for e in prediction[kind] if e["category_id"] == category)["category_id"] = new


def relabel(predictions: list[Prediction], category: int, new: int) -> None:
    """Gives all pixels of a class to another class."""
    for prediction in predictions:
        prediction["labels"][prediction["labels"] == category] = new


def false_alarm(predictions: list[Prediction], category: int) -> None:
    """Adds an instance of a class, surer than the true ones, in the place of another instance."""
    other = next(
        i for p in predictions for i in p["instances"] if not _has(p, "instances", category)
    )
    prediction = next(p for p in predictions if any(i is other for i in p["instances"]))
    prediction["instances"].append({**other, "category_id": category, "score": 0.99})


def blur(predictions: list[Prediction], kind: str) -> None:
    """Moves, cuts, doubles and renames at random, with random scores; the same ones every time."""
    rng = np.random.default_rng(3)
    classes = sorted(count(predictions, kind))
    for prediction in predictions:
        for entry in list(prediction[kind]):
            if rng.random() < 0.3:
                prediction[kind].append({**entry, "score": float(rng.uniform(0.1, 0.8))})
            entry["mask"] = np.roll(entry["mask"], rng.integers(-6, 7, 2), axis=(0, 1))
            entry["mask"] = cut_mask(entry["mask"], rng.uniform(0.6, 1))
            entry["score"] = float(rng.uniform(0.1, 1))
            if rng.random() < 0.15:
                entry["category_id"] = int(rng.choice(classes))


def _has(prediction: Prediction, kind: str, category: int) -> bool:
    return any(e["category_id"] == category for e in prediction[kind] or [])
