"""Which answers of a search to abstain from, so that the others keep the risk that the server was given."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import InputError

if TYPE_CHECKING:
    from index.answers.results import SearchResult
    from index.calibration.abstention import Rule
    from index.gallery.gallery import Gallery


class Doubts:
    """Rules for one gallery, one a distance: each calibrated when first asked for, then kept.

    max_risk: the share of the answers that may have a wrong nearest image; None: nothing is said.
    """

    def __init__(self, max_risk: float | None) -> None:
        self._max_risk = max_risk
        self._rules: dict[str, Rule] = {}
        self._calibrating = threading.Lock()

    def search(
        self, gallery: Gallery, queries: GaussianEmbedding, k: int, options: Mapping[str, Any]
    ) -> list[tuple[SearchResult, bool | None]]:
        """Return what Q queries find, up to k each, and whether to abstain from it, None for no opinion.

        options: further arguments of `Gallery.search`, whose errors it raises.
        """
        rule = self.rule(gallery, options.get("distance"))
        if rule is None:
            return [(result, None) for result in gallery.search(queries, k, **options)]
        from index.calibration.neighbour_disagreement import NEIGHBOURS

        results = gallery.search(queries, max(k, NEIGHBOURS), **options)
        shown = (replace(result, neighbours=result.neighbours[:k]) for result in results)
        return list(zip(shown, rule.abstains(results), strict=True))

    def rule(self, gallery: Gallery, distance: str | None = None) -> Rule | None:
        """Return the rule of a distance, the gallery's own when None; None where no risk was given.

        Raises InputError for an unknown distance and for a gallery without labels.
        """
        if self._max_risk is None:
            return None
        name = distance or gallery.distance
        known = self._rules.get(name)
        if known is not None:  # without waiting for another distance's calibration
            return known
        with self._calibrating:
            if name not in self._rules:
                self._rules[name] = gallery.abstention(self._max_risk, name)
            return self._rules[name]


def check_risk(max_risk: float | None, gallery: Gallery | None) -> Rule | None:
    """Return the rule of the gallery's own distance. Raises InputError where there is nothing to calibrate on."""
    if max_risk is None:
        return None
    if gallery is None:
        raise InputError("--max-risk is about a gallery's answers; name one: vssl serve --gallery GALLERY")
    return Doubts(max_risk).rule(gallery)
