"""AWS in memory, at its documented rates: what many jobs at once meet."""

from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

# Requests a second in the smaller Regions; in the larger ones they are several times as many.
# Each operation has a quota of its own (Scheduler user guide, "Quotas"). Its table has 250 for
# CreateSchedule; that reads and updates are as many, and lists fewer, is a guess.
RATES = {"CreateSchedule": 250, "GetSchedule": 250, "UpdateSchedule": 250, "ListSchedules": 50}

# Of each schedule in a page of ListSchedules.
LISTED = ("Name", "CreationDate", "LastModificationDate")


class ConflictException(ClientError):
    """As Scheduler answers to a name that is taken."""


@dataclass
class Bucket:
    """A token bucket: `rate` a second, at most `burst` at once."""

    rate: float
    burst: float
    level: float = field(init=False)
    filled: datetime | None = None

    def __post_init__(self) -> None:
        self.level = self.burst

    def take(self, now: datetime) -> bool:
        if self.filled is not None:
            gained = (now - self.filled).total_seconds() * self.rate
            self.level = min(self.burst, self.level + gained)
        self.filled = now
        if self.level < 1:
            return False
        self.level -= 1
        return True


class Scheduler:
    """A client of EventBridge Scheduler, as far as the function uses one.

    `due` is called with the name, the time and the version of each schedule that is created or
    updated; its owner calls `fire` then.
    """

    exceptions = SimpleNamespace(ConflictException=ConflictException)

    def __init__(
        self, now: Callable[[], datetime], due: Callable[[str, datetime, int], None]
    ) -> None:
        self._now, self._is_due = now, due
        self._buckets = {operation: Bucket(rate, rate) for operation, rate in RATES.items()}
        self._schedules: dict[str, dict[str, Any]] = {}
        self._names: list[str] = []
        self._versions = 0

    def fire(self, name: str, version: int) -> str | None:
        """The payload of a schedule, which is gone then; None if it was updated meanwhile."""
        schedule = self._schedules.get(name)
        if schedule is None or schedule["version"] != version:
            return None
        del self._schedules[name]
        del self._names[bisect_left(self._names, name)]
        payload: str = schedule["Target"]["Input"]
        return payload

    def create_schedule(self, **schedule: Any) -> None:
        self._take("CreateSchedule")
        if schedule["Name"] in self._schedules:
            raise ConflictException({"Error": {"Code": "ConflictException"}}, "CreateSchedule")
        insort(self._names, schedule["Name"])
        self._keep({**schedule, "CreationDate": self._now()})

    def update_schedule(self, **schedule: Any) -> None:
        self._take("UpdateSchedule")
        made = self._found(schedule["Name"], "UpdateSchedule")["CreationDate"]
        self._keep({**schedule, "CreationDate": made})

    def get_schedule(self, *, GroupName: str, Name: str) -> dict[str, Any]:  # noqa: N803 - AWS's
        del GroupName
        self._take("GetSchedule")
        found = self._found(Name, "GetSchedule").items()
        return {k: v for k, v in found if k not in ("version", *LISTED[1:])}

    def list_schedules(
        self,
        *,
        GroupName: str,  # noqa: N803
        NamePrefix: str,  # noqa: N803
        MaxResults: int,  # noqa: N803
    ) -> dict[str, Any]:
        """One page, by name: the order is not documented (a guess)."""
        del GroupName
        self._take("ListSchedules")
        first = bisect_left(self._names, NamePrefix)
        end = bisect_left(self._names, f"{NamePrefix}~")  # behind all that a name can hold
        names = self._names[first : min(end, first + MaxResults)]
        more = {"NextToken": "more"} if end - first > MaxResults else {}
        found = [{name: self._schedules[each][name] for name in LISTED} for each in names]
        return {"Schedules": found, **more}

    def _found(self, name: str, operation: str) -> dict[str, Any]:
        if name not in self._schedules:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException"}}, operation)
        return self._schedules[name]

    def _keep(self, schedule: dict[str, Any]) -> None:
        self._versions += 1
        at = datetime.fromisoformat(f"{schedule['ScheduleExpression'][3:-1]}+00:00")
        changed = {"LastModificationDate": self._now(), "version": self._versions}
        self._schedules[schedule["Name"]] = {**schedule, **changed}
        self._is_due(schedule["Name"], at, self._versions)

    def _take(self, operation: str) -> None:
        if not self._buckets[operation].take(self._now()):
            raise ClientError({"Error": {"Code": "ThrottlingException"}}, operation)
