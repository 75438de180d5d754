"""What one invocation came to: a closed set of names."""

from enum import StrEnum


class Outcome(StrEnum):
    """What one invocation decided and did. The README says when each one is returned."""

    LAUNCHED = "LAUNCHED"
    FAILED_AGAIN = "FAILED_AGAIN"
    SCHEDULED = "SCHEDULED"
    ALREADY_SCHEDULED = "ALREADY_SCHEDULED"
    ALREADY_LAUNCHED = "ALREADY_LAUNCHED"
    OPTED_OUT = "OPTED_OUT"
    LEFT_ALONE = "LEFT_ALONE"
    EXHAUSTED = "EXHAUSTED"
    EXPIRED = "EXPIRED"
    NOT_RETRYABLE = "NOT_RETRYABLE"
    NOT_REPLAYABLE = "NOT_REPLAYABLE"

    @property
    def is_dead_letter(self) -> bool:
        """Did the job end without a launch? The template archives and announces the same ones."""
        return self in (self.EXHAUSTED, self.EXPIRED, self.NOT_RETRYABLE, self.NOT_REPLAYABLE)
