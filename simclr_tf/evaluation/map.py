"""A map of the features in two dimensions, to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simclr_tf.evaluation import neighbours, outcome, projector

if TYPE_CHECKING:
    from matplotlib import figure

# t-SNE takes about 15 seconds for this many points.
_MOST_POINTS = 3000
_COMPONENTS = 50
_LARGEST_PERPLEXITY = 30.0
_NEIGHBOURS = 12
# More classes than this have no names in the picture.
_NAMED_CLASSES = 20


def evaluate(inputs: outcome.Inputs) -> outcome.Outcome:
    """Draws evaluation features by t-SNE of their first principal components.

    At most 3,000 features, drawn by the seed, of length 1; if there are thumbnails of some images
    only, of these. The components are also written for the projector of TensorBoard. Labels only
    choose the colours. Trustworthiness (Venna and Kaski 2001) is 1 if all neighbours in the map are
    neighbours in the features.
    """
    from sklearn import manifold

    result = outcome.Outcome()
    small = inputs.thumbnails
    rows = np.arange(len(inputs.test_features)) if small is None else small.rows
    if len(rows) > _MOST_POINTS:
        rows = np.random.default_rng(inputs.seed).choice(rows, _MOST_POINTS, replace=False)
    if len(rows) <= 2 * _NEIGHBOURS:
        result.rows.append(("map", f"needs more than {2 * _NEIGHBOURS} images"))
        return result
    unit = neighbours.unit_rows(inputs.test_features[rows])
    points = positions(unit, seed=inputs.seed)
    value = float(manifold.trustworthiness(unit, points, n_neighbors=_NEIGHBOURS))
    result.add_number("map/trustworthiness", "trustworthiness of the map", value, f"{value:.3f}")
    labels = inputs.test_labels[rows]
    names = inputs.test_names or list(map(str, range(len(inputs.test_features))))
    result.files = projector.files(
        _reduced(unit, inputs.seed),
        [inputs.class_names[label] for label in labels],
        [names[row] for row in rows],
        None if small is None else small.images[np.searchsorted(small.rows, rows)],
    )
    result.figures["map.svg"] = lambda target: _draw(target, points, labels, inputs.class_names)
    return result


def positions(unit: np.ndarray, *, seed: int) -> np.ndarray:
    """Returns a position in the plane (n, 2) for each of the features (n, f)."""
    from sklearn import manifold

    tsne = manifold.TSNE(
        perplexity=min(_LARGEST_PERPLEXITY, len(unit) / 4), init="pca", random_state=seed
    )
    return tsne.fit_transform(_reduced(unit, seed))


def _reduced(unit: np.ndarray, seed: int) -> np.ndarray:
    """Returns the first principal components (n, d) of features (n, f)."""
    from sklearn import decomposition

    components = min(_COMPONENTS, *unit.shape)
    return decomposition.PCA(components, random_state=seed).fit_transform(unit)


def _draw(
    target: figure.Figure, points: np.ndarray, labels: np.ndarray, names: tuple[str, ...]
) -> None:
    axes = target.subplots()
    colours = "tab10" if len(names) <= 10 else "tab20" if len(names) <= 20 else "turbo"
    x, y = points.T
    axes.scatter(x, y, s=6, c=labels, cmap=colours, vmin=-0.5, vmax=len(names) - 0.5)
    axes.set_axis_off()
    axes.set_title("t-SNE of the features, coloured by class")
    if len(names) <= _NAMED_CLASSES:
        for label in np.unique(labels):
            x, y = np.median(points[labels == label], 0)
            box = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1}
            axes.text(x, y, names[label], ha="center", va="center", bbox=box)
