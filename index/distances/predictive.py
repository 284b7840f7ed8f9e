"""Gaussians and a prior over classes -> how much likelier "same class" is than "not".

Per dimension: class centres ~ N(c, b), embeddings about their centre with variance w, encoder
noise s or v on top. Having seen the item, the class centre is known better, which shrinks its
mean towards c and leaves it a variance between w and w + b:

    k = b / (b + w + v),  U = c + k (mu - c),  V = w + b (1 - k)

The likelihood ratio of "one class" against "two classes" is then a mutual likelihood with
N(U, V), less how likely the query is anyway (heteroscedastic PLDA). It takes the popularity of
an item out of the distance, so it makes no hubs. Shape letters: Q queries, N items, D dimension.
"""

from __future__ import annotations

import numpy as np

from index.arrays import Float64s
from index.distances import bound
from index.distances.encoding import Anchor, Distance, QueryEncoding
from index.distances.parameters import Densities, DistanceParameters


def predicted(items: Densities, parameters: DistanceParameters) -> Densities:
    """Return N(U - c, V): what an item says of another embedding of its class, about the centre."""
    between, within, centre = parameters.prior(items.mean.shape[-1])
    k = between / (between + within + items.variance)
    return Densities(k * (items.mean - centre), _predicted_variance(items.variance, between, within))


def _predicted_variance(variance: Float64s, between: Float64s, within: Float64s) -> Float64s:
    """V = w + b (1 - k), written without the difference; increases with the variance."""
    extra = within + variance
    return within + between * (extra / (between + extra))


def posterior(query: Densities, item: Densities, parameters: DistanceParameters) -> Float64s:
    """Return -ln [p(query, item | one class) / (p(query) p(item))] in nats; negative means same.

    1/2 sum [(m-U)^2/(s+V) + ln(s+V)] - 1/2 sum [(m-c)^2/(b+w+s) + ln(b+w+s)]. Symmetric.
    Raises InputError when the parameters hold no prior.
    """
    between, within, centre = parameters.prior(item.mean.shape[-1])
    seen = predicted(item, parameters)
    m = query.mean - centre
    total, marginal = query.variance + seen.variance, between + within + query.variance
    same = (m - seen.mean) ** 2 / total
    any_class = m**2 / marginal
    distance: Float64s = 0.5 * (same - any_class + np.log(total / marginal)).sum(axis=-1)
    return distance


def _items(items: Densities, anchor: Anchor, parameters: DistanceParameters) -> Float64s:
    return bound.encode_items(predicted(items, parameters), anchor.typical, np.zeros(len(items.mean)))


def _queries(queries: Densities, anchor: Anchor, parameters: DistanceParameters) -> QueryEncoding:
    between, within, centre = parameters.prior(queries.mean.shape[1])
    shifted = Densities(queries.mean - centre, queries.variance)
    low, high = (_predicted_variance(v, between, within) for v in (anchor.low, anchor.high))
    phi, offset = bound.encode_queries(shifted, anchor.typical, low, high, 0.5)
    marginal = between + within + queries.variance
    return phi, offset - 0.5 * (shifted.mean**2 / marginal + np.log(marginal)).sum(axis=1)


DISTANCES = (Distance("posterior", posterior, _items, _queries, floors=True, bounds=True),)
