"""What a learning curve is drawn from: answers at several numbers of labels, by several draws."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kusabi.errors import DataError
from kusabi.evaluation.clusters import Groups


@dataclass(frozen=True)
class Measured:
    """Answers at ``s`` numbers of labels, by ``d`` draws, to the same ``m`` pictures.

    ``right`` ``(s, d, m)``; ``truth`` ``(m,)``; ``shots`` as asked, rising, and ``labels`` as there were: the mean
    number of labelled pictures a class, lower where a class has too few. ``groups`` of the pictures ``(m,)`` are as in
    ``clusters.py``.
    """

    right: NDArray[np.bool_]
    truth: NDArray[np.int64]
    classes: Sequence[str]
    shots: Sequence[int]
    labels: Sequence[float]
    groups: Groups | None = None

    def known_apart(self, label: int | None = None) -> bool:
        """Whether the pictures, of one class or all, are more than a single group, which says nothing of others."""
        if self.groups is None:
            return True
        return len(np.unique(self.groups if label is None else self.groups[self.truth == label])) > 1

    def check(self) -> None:
        """Refuse what is no curve.

        Raises:
            DataError: When shapes do not match, or there are fewer than two draws or no pictures.
        """
        shape = self.right.shape
        expected = (len(self.shots), shape[1] if len(shape) == 3 else 0, len(self.truth))
        if shape != expected or len(self.labels) != len(self.shots):
            raise DataError(f"answers have shape {shape}; (numbers of labels, draws, pictures) = {expected} is needed")
        if shape[1] < 2 or shape[2] < 1:
            raise DataError(f"{shape[1]} draws of {shape[2]} pictures: two draws and one picture are the least")

    def recall(self, step: int, label: int) -> float:
        """Of one class at one number of labels, mean over the draws."""
        return float(self.right[step][:, self.truth == label].mean())

    def gains(self, members: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """What each picture adds to the gain of the last step, mean over the draws; among some of the pictures."""
        right = self.right if members is None else self.right[:, :, members]
        return (right[-1].mean(axis=0) - right[-2].mean(axis=0)) / right.shape[2]
