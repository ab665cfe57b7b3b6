"""Clustering: whether the classes are clusters of the features."""

from __future__ import annotations

from simclr_tf.evaluation import neighbours, outcome

_STARTS = 4


def evaluate(inputs: outcome.Inputs) -> outcome.Outcome:
    """Clusters the l2-normalised evaluation features by k-means, with as many clusters as classes.

    Normalised mutual information and the adjusted Rand index compare clusters with classes: 1 if
    they are the same, about 0 if they have nothing to do with each other. The best of 4 starts, by
    the distances and not by the labels, counts.
    """
    from sklearn import cluster, metrics

    result = outcome.Outcome()
    count = len(inputs.class_names)
    if count > len(inputs.test_labels):
        result.rows.append(("clusters", "fewer images than classes"))
        return result
    kmeans = cluster.KMeans(count, n_init=_STARTS, random_state=inputs.seed)
    found = kmeans.fit_predict(neighbours.unit_rows(inputs.test_features))
    for name, what, score in (
        ("nmi", "normalised mutual information", metrics.normalized_mutual_info_score),
        ("ari", "adjusted Rand index", metrics.adjusted_rand_score),
    ):
        value = float(score(inputs.test_labels, found))
        result.add_number(f"clusters/{name}", f"clusters: {what}", value, f"{value:.3f}")
    return result
