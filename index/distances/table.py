"""Name -> distance: the twelve a gallery can be asked for."""

from __future__ import annotations

from index.distances import divergence, means, overlap, predictive, stored_scale, transport
from index.distances.encoding import Distance
from vssl.errors import InputError, shown

FAMILIES = (means, transport, divergence, stored_scale, overlap, predictive)
DISTANCES: dict[str, Distance] = {
    distance.name: distance for family in FAMILIES for distance in family.DISTANCES
}
NAMES = (
    "cosine",
    "euclidean",
    "expected",
    "wasserstein",
    "kl",
    "reverse-kl",
    "jeffreys",
    "mahalanobis",
    "student-t",
    "mls",
    "bhattacharyya",
    "posterior",
)
MEANS_ALONE = ("cosine", "euclidean")  # read no variance
SIGNED = ("student-t", "mls", "posterior")  # logarithms of densities: may be negative


def named(name: str) -> Distance:
    """Return the distance of that name. Raises InputError for an unknown one."""
    if name not in DISTANCES:
        raise InputError(f"distance: found {shown(name)}, expected one of {', '.join(NAMES)}")
    return DISTANCES[name]
