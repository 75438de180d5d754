"""What the log has shown of a drill's chain so far, and what that comes to."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from account.chain_log import Entry
from rehearsal.show import elapsed, line
from retry_run_task.outcome import Outcome

LAUNCHED = (Outcome.LAUNCHED, Outcome.ALREADY_LAUNCHED)
PENDING = (Outcome.FAILED_AGAIN, Outcome.SCHEDULED, Outcome.ALREADY_SCHEDULED)

# The width of "+0:00:03   " in front of what is printed of a line.
INDENT = 11


@dataclass(slots=True)
class Followed:
    """What was seen of the chain that begins with the event `made_up`.

    `tries` is how often Lambda still runs the first invocation. `tasks` are the ARNs of what was
    placed, in `cluster`. `came_back`: after an attempt had failed, there was an outcome of its own
    event.
    """

    made_up: str
    tries: int
    last: str = ""
    tasks: tuple[str, ...] = ()
    cluster: str = ""
    came_back: bool = False
    _errors: int = 0
    _bad_ends: int = 0
    _is_said: bool = False

    def take(self, entry: Entry, since: datetime) -> str:
        """What is to be printed of a line of the log; empty for nothing."""
        before = f"+{elapsed(max(entry.moment - since, timedelta()))}".ljust(INDENT)
        if entry.outcome:
            event = entry.text("event")
            self.came_back |= self.last == Outcome.FAILED_AGAIN and event not in ("", self.made_up)
            self.last = entry.outcome
            self.cluster = entry.text("cluster") or self.cluster
            self.tasks = tuple(dict.fromkeys((*self.tasks, *entry.tasks)))
            text = f"{entry.outcome}, attempt {entry.text('attempt')}"
            detail = entry.text("detail")
            return line(before, f"{text}: {detail}" if detail else text)
        if entry.error:
            self._errors += 1
            self._is_said = True
            return line(before, f"The function failed: {entry.error}")
        if entry.end in ("", "success"):
            return ""
        self._bad_ends += 1
        is_said, self._is_said = self._is_said, False
        return "" if is_said else line(before, f"The function failed: {entry.end}")

    @property
    def is_over(self) -> bool:
        """Has the chain ended, as far as the log shows?"""
        return self.has_failed or self.last not in ("", *PENDING)

    @property
    def has_failed(self) -> bool:
        """Has the first invocation failed each time that Lambda runs it?"""
        return not self.last and max(self._errors, self._bad_ends) >= self.tries

    @property
    def is_launched(self) -> bool:
        """Does the job run, all of it?"""
        return self.last in LAUNCHED

    @property
    def may_start(self) -> bool:
        """May something start, or have started, that the log has not shown?"""
        return self.has_failed or self.last in ("", *PENDING)

    def verdict(self, timeout: timedelta) -> str:
        """How it ended."""
        placed = f" These tasks were placed: {', '.join(self.tasks)}." if self.tasks else ""
        if self.is_launched:
            return f"Launched: {', '.join(self.tasks) or 'by an earlier invocation'}."
        if self.has_failed:
            return f"The function has failed {self.tries} times, and people are alerted."
        time = elapsed(timeout)
        if not self.last:
            return f"Not known: no outcome came within {time}."
        if self.last == Outcome.FAILED_AGAIN:
            problem = "an attempt has failed, and its own event has not come back yet"
            return f"Not launched within {time}: {problem}.{placed}"
        if self.last in PENDING:
            return f"Not launched within {time}: the next attempt is pending.{placed}"
        if self.last in (Outcome.LEFT_ALONE, Outcome.OPTED_OUT):
            return f"Not launched: the function leaves the job alone.{placed}"
        return f"Not launched: the chain has ended, and people are alerted.{placed}"

    def not_verified(self) -> str:
        """What the drill has not shown."""
        if self.came_back:
            return (
                "Verified as well: an attempt failed, and its own event came back through "
                "CloudTrail and the rule."
            )
        return (
            "Not verified: that CloudTrail sends the event of a failed call to the rule, and that "
            "the rule invokes the function. `uv run check` looks at both."
        )
