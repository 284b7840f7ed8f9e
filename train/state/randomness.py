"""(seed, purpose, step) -> a generator: all randomness of a run is a function of where it stands.

Nothing has to be saved for an exact resume, and no draw depends on how often another was made.
"""

from __future__ import annotations

import hashlib

import torch


def seed_of(seed: int, purpose: str, step: int = 0) -> int:
    """Return 32 well-mixed bits; torch's CPU generator reads no more."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{step}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


def generator_for(device: torch.device, seed: int, purpose: str, step: int = 0) -> torch.Generator:
    """Return a new generator on the device, seeded for this purpose and step."""
    return torch.Generator(device).manual_seed(seed_of(seed, purpose, step))


def held_out(identity: str, share: float) -> bool:
    """Decide by a hash of the id whether an image is held out; the same in every run and order."""
    digest = hashlib.sha256(f"validation/{identity}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
