"""How long to wait before something that failed in passing is tried again.

Arithmetic alone: nobody sleeps here. Who retries keeps its attempts where they outlive the process (a delayed workflow,
a row with a time that is due), and a workflow that is run again must come to the same pause.
"""

import hashlib

#: Beyond this many doublings every pause has reached its longest.
_MOST_STEPS = 64


def backoff_s(first_s: float, longest_s: float, attempt: int, seed: str, growth: float = 2.0) -> float:
    """Return the seconds to wait after a failed attempt: growing up to the longest, less up to half by jitter.

    The jitter keeps a hundred that failed together from coming back together. It follows from `seed` and `attempt`
    alone (SHA-256), so the same call gives the same pause.

    Args:
        first_s: the pause after the first attempt, before jitter.
        longest_s: the longest pause, before jitter.
        attempt: which attempt has failed, counted from 1.
        seed: what tells this one from others that may fail at the same time.
        growth: by how much each pause is longer than the one before, at least 1.
    """
    full = min(first_s * growth ** min(attempt - 1, _MOST_STEPS), longest_s)
    digest = hashlib.sha256(f"{seed} {attempt}".encode(errors="backslashreplace")).digest()
    return full * (1.0 - 0.5 * int.from_bytes(digest[:4], "big") / 2**32)
