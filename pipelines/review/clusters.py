"""Clusters of near-duplicate tracks: all that pairs connect."""

import numpy as np
from jaxtyping import Int, Int32
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Rows = Int32[np.ndarray, " n"]


def clusters(one: Int[np.ndarray, " p"], other: Int[np.ndarray, " p"]) -> tuple[Rows, Rows]:
    """Returns the rows that occur in pairs, ascending, and the cluster of each, which is the least of its rows."""
    rows, places = np.unique(np.concatenate([one, other]), return_inverse=True)
    first, second = np.split(places, 2)
    links = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(rows), len(rows)))
    number = connected_components(links, directed=False)[1] if len(rows) else np.empty(0, np.int32)
    _, least = np.unique(number, return_index=True)
    return rows.astype(np.int32), rows[least[number]].astype(np.int32)
