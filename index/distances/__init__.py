"""Two Gaussians -> one number, smaller is nearer: the twelve distances of a gallery."""

from index.distances.parameters import DistanceParameters
from index.distances.prior import fit_prior
from index.distances.reference import gathered, pairwise
from index.distances.table import NAMES, SIGNED

__all__ = ["NAMES", "SIGNED", "DistanceParameters", "fit_prior", "gathered", "pairwise"]
