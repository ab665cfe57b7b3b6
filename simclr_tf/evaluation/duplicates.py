"""Groups of images that are duplicates, by their content and by the cosine of their features."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """The duplicates among n images.

    Attributes:
        group: (n,) int64, number of the group of an image, from 0; -1 if it has no duplicate.
            Groups with exact duplicates come first, then those of more similar images.
        exact: (n,) bool, whether another image has the same content.
    """

    group: np.ndarray
    exact: np.ndarray

    @property
    def num_groups(self) -> int:
        """Number of groups."""
        return int(self.group.max(initial=-1)) + 1

    def representatives(self) -> np.ndarray:
        """Returns (n,) the number of the first image of the group of each image."""
        result = np.arange(len(self.group))
        rows = np.flatnonzero(self.group >= 0)
        first = np.full(self.num_groups, len(self.group))
        np.minimum.at(first, self.group[rows], rows)
        result[rows] = first[self.group[rows]]
        return result


def find(
    content: np.ndarray, indices: np.ndarray, cosines: np.ndarray, threshold: float
) -> Duplicates:
    """Finds duplicates: images of equal content, or with a cosine of at least a threshold.

    Groups are the connected components: an image may be linked to another one of its group only by
    way of a third. As only the nearest images are known, a group of more near-duplicates than these
    may be found as several groups.

    Args:
        content: (n,) int64, equal for equal files.
        indices: (n, k) nearest images of each image, itself excluded.
        cosines: (n, k) their cosines.
        threshold: the smallest cosine of near-duplicates.
    """
    rows, columns = np.nonzero(cosines >= threshold)
    order = np.argsort(content, kind="stable")
    same = np.flatnonzero(content[order[1:]] == content[order[:-1]])
    exact = np.zeros(len(content), bool)
    exact[order[same]] = exact[order[same + 1]] = True
    one = np.concatenate([rows, order[same]])
    other = np.concatenate([indices[rows, columns], order[same + 1]])
    links = scipy.sparse.coo_matrix((np.ones(len(one)), (one, other)), shape=2 * [len(content)])
    component = scipy.sparse.csgraph.connected_components(links, directed=False)[1]
    size = np.bincount(component)
    best = np.full(len(size), -np.inf)  # Of exact duplicates, above any cosine.
    np.maximum.at(best, component, np.where(exact, 2.0, cosines[:, 0]))
    several = np.flatnonzero(size > 1)
    ranked = several[np.argsort(-best[several], kind="stable")]
    number = np.full(len(size), -1)
    number[ranked] = np.arange(len(ranked))
    return Duplicates(number[component], exact)
