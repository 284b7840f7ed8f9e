"""The risk that the server was given -> when it abstains, which its gallery knows (index.calibration.abstention)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vssl.errors import InputError

if TYPE_CHECKING:
    from index.calibration.abstention import AbstentionRule
    from index.gallery.protocol import Gallery


def check_risk(max_risk: float | None, gallery: Gallery | None) -> AbstentionRule | None:
    """Return the rule of the gallery's own distance. Raises InputError where there is nothing to calibrate on."""
    if max_risk is None:
        return None
    if gallery is None:
        raise InputError("--max-risk is about a gallery's answers; name one: vssl serve --gallery GALLERY")
    return gallery.abstention(max_risk)
