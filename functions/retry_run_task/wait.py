"""Act: one schedule that invokes the function again when the next attempt is due."""

from datetime import datetime
from typing import TYPE_CHECKING

from botocore.config import Config

from retry_run_task.decision import Wait
from retry_run_task.failed_call import write_time
from retry_run_task.outcome import Outcome
from retry_run_task.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_scheduler import EventBridgeSchedulerClient

# Two tries of 3 + 7 s and the wait between them (at most 1 s): with RunTask's 15 s before them, all
# end within the function's timeout of 180 s.
CLIENT_CONFIG = Config(
    connect_timeout=3, read_timeout=7, retries={"mode": "standard", "total_max_attempts": 2}
)


def schedule(
    scheduler: "EventBridgeSchedulerClient", wait: Wait, settings: Settings
) -> tuple[Outcome, str]:
    """Create the schedule. SCHEDULED or ALREADY_SCHEDULED, and a sentence that says until when.

    A schedule of the same name is that of a duplicate of this invocation. Raises botocore's
    ClientError for whatever Scheduler rejects.
    """
    try:
        scheduler.create_schedule(
            Name=wait.name,
            GroupName=settings.schedule_group,
            ScheduleExpression=expression(wait.until),
            ScheduleExpressionTimezone="UTC",
            FlexibleTimeWindow={"Mode": "OFF"},
            ActionAfterCompletion="DELETE",
            Target={
                "Arn": settings.function_arn,
                "RoleArn": settings.scheduler_role_arn,
                "Input": wait.payload,
                # The longest that Scheduler tries to deliver: a late attempt is better than none,
                # and the maximum age is checked when it arrives.
                "RetryPolicy": {"MaximumRetryAttempts": 185, "MaximumEventAgeInSeconds": 86400},
                "DeadLetterConfig": {"Arn": settings.dead_letter_queue_arn},
            },
        )
    except scheduler.exceptions.ConflictException:
        return Outcome.ALREADY_SCHEDULED, "A duplicate is pending already."
    return Outcome.SCHEDULED, f"Pending until {write_time(wait.until)}."


def expression(moment: datetime) -> str:
    """The schedule expression for one time, in UTC."""
    return f"at({moment:%Y-%m-%dT%H:%M:%S})"
