"""Random numbers that follow from what they are for, not from what was drawn before.

Every draw is a hash of (seed, epoch, sentence, position, ...), so there is no generator state to
save, and the batch a sentence is in changes nothing.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit integers: the finaliser of SplitMix64 (Steele et al. 2014, figure 19)."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def absorb(state: NDArray[np.uint64], *keys: Any) -> NDArray[np.uint64]:
    """Return states that also depend on the broadcast integer keys, one after the other."""
    with np.errstate(over="ignore"):
        for key in keys:
            state = mix(state + GOLDEN + np.asarray(key).astype(np.uint64))
    return state


def unit_interval(state: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return the upper 53 bits of scrambled integers as numbers in [0, 1)."""
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def uniforms(*keys: Any) -> NDArray[np.float64]:
    """Return numbers in [0, 1), one for each combination of the broadcast integer keys."""
    return unit_interval(absorb(np.zeros((), np.uint64), *keys))


def seed_of(*parts: Any) -> int:
    """Return a 63-bit seed for a generator, from any printable parts."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
