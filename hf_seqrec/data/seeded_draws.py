"""
Random numbers that are a pure function of (seed, epoch, user), so that workers, ranks and resumed runs agree.

A counter-based generator: a round of the SplitMix64 finaliser (Steele, Lea, Flood 2014,
https://doi.org/10.1145/2660193.2660195) for each part of the key. A `numpy.random.Generator` for each user would take
longer than the batch.
"""

import numpy as np
import numpy.typing as npt


def user_draws(users: npt.NDArray[np.int64], seed: int, epoch: int) -> npt.NDArray[np.uint64]:
    """Draw 64 random bits for each user, `(b,)`."""
    with np.errstate(over="ignore"):
        draws = _mix(np.uint64(seed % 2**64) + np.zeros(len(users), dtype=np.uint64))
    return more_draws(more_draws(draws, epoch), users)


def more_draws(draws: npt.NDArray[np.uint64], which: int | npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Draw 64 more bits from each draw; another number `which` (or array of them, broadcast) gives others."""
    return _mix(draws ^ np.asarray(which).astype(np.uint64))


def below(draws: npt.NDArray[np.uint64], bounds: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Turn draws into integers in [0, bound)."""
    # The upper 32 bits times the bound, upper half: uniform up to bound / 2^32.
    return (((draws >> np.uint64(32)) * bounds.astype(np.uint64)) >> np.uint64(32)).astype(np.int64)


def uniform(draws: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Turn draws into numbers in [0, 1)."""
    return (draws >> np.uint64(11)) * 2.0**-53


def _mix(key: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        key = key + np.uint64(0x9E3779B97F4A7C15)
        key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))
