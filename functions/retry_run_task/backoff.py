"""When the next attempt is made."""

import hashlib
from datetime import timedelta

# A large replay is spread over this time, so that it stays below ECS's rates: it takes 10,800 calls
# at the 20 a second that Fargate allows (Fargate throttling quotas).
REPLAY_SPREAD = timedelta(minutes=9)

# A client token dies an hour after its task has ended (ECS_Idempotency), and a task that an earlier
# use of it has started may have been a short one: until then, a later use of it finds the task.
TOKEN_LIFE = timedelta(minutes=55)

# The longest wait where somebody may be ahead: for a second use of a token, and for the next token
# after one that another request had used.
SHARED_CAP = timedelta(minutes=30)

# By how much an attempt is pulled forward, at most. When it has fired, its schedule's name is free,
# and a late duplicate of its event waits under that name for its whole time: that one must count
# the token's life from the earliest time at which the other may have used it.
MOST_GAIN = timedelta(minutes=15)

# EventBridge Scheduler fires within 60 s of the time it was given, and may refuse a past one
# (Scheduler user guide, "Schedule types"): no schedule is nearer than that.
SHORTEST = timedelta(seconds=60)


def delay(name: str, step: int, base: timedelta, cap: timedelta) -> timedelta:
    """How long an attempt waits at step 2, 3, … of the backoff: exponential, capped, and spread.

    The spread depends on `name`, that of the attempt. It is as good as random over many jobs, but
    the same for the same attempt: duplicates compute one time (AWS Architecture Blog, "Exponential
    Backoff And Jitter": equal jitter). No attempt is without it, lest a storm comes back as one:
    the least is 1 to 2 minutes, whatever the base and the cap.
    """
    # The shortest base reaches the longest cap, a day, by the eleventh doubling.
    longest = min(cap, base * (1 << min(step - 2, 11)))
    return max(SHORTEST * 2, longest) * (0.5 + spread(name) / 2)


def replay_delay(origin: str, replay_name: str) -> timedelta:
    """How long a replayed dead letter waits: from 1 to 10 minutes, the same for duplicates."""
    return SHORTEST + REPLAY_SPREAD * spread(f"{origin}-{replay_name}")


def spread(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48
