"""The chain that a drill sets off: invoke the function, follow the log, stop what was placed."""

import argparse
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from botocore import exceptions
from botocore.exceptions import ClientError

from account.chain_log import chain_of, entries
from account.deployed import Deployed
from account.followed import Followed
from account.session import ERRORS, ONE_TRY, client_of, problem_of
from account.terminal import say, show
from rehearsal.records import BadInput, read_moment
from rehearsal.show import line
from rehearsal.template import Stack
from retry_run_task.chain import origin_of

# After these, Lambda has not got the event. After all other errors that are none of its own, it may
# have, or not.
NOT_SENT = (
    exceptions.ConnectTimeoutError,
    exceptions.CredentialRetrievalError,
    exceptions.EndpointConnectionError,
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.ParamValidationError,
    exceptions.ProxyConnectionError,
    exceptions.SSOError,
    exceptions.TokenRetrievalError,
)

# In place of the identifier of the invocation's request, where nobody knows it.
NO_REQUEST = "unknown"


class Chain:
    """What a drill sets off, and how it goes on.

    Once the function is invoked, nothing but an interrupt leaves it: what AWS raises is said.
    """

    def __init__(self, session: boto3.Session, stack: Deployed) -> None:
        """Raises BadInput."""
        self._function, self._group = stack.outputs["FunctionName"], stack.outputs["LogGroupName"]
        self._lambda = client_of(session, "lambda", config=ONE_TRY)
        self._logs, self._ecs = client_of(session, "logs"), client_of(session, "ecs")
        tries = Stack().function["EventInvokeConfig"]["MaximumRetryAttempts"] + 1
        self.followed, self._origin = Followed("", tries), ""

    def look(self) -> None:
        """May the log be read? Raises what AWS raises."""
        now = int(datetime.now(UTC).timestamp() * 1000)
        self._logs.filter_log_events(logGroupName=self._group, startTime=now, limit=1)

    def follow(self, event: Mapping[str, Any], timeout: timedelta) -> str:
        """Invoke the function, and print each line of the chain until it ends, or the time is over.

        What has kept it from following; empty for nothing. Raises BadInput where Lambda has not
        taken the event.
        """
        detail, since = event["detail"], read_moment(event["time"])
        token = detail["requestParameters"].get("clientToken")
        self._origin = origin_of(detail["eventID"], token)
        self.followed.made_up = detail["eventID"]
        try:
            request_id = invoke(self._lambda, self._function, event)
            pattern = chain_of(self._origin, request_id)
            for entry in entries(self._logs, self._group, pattern, since, since + timeout):
                if text := self.followed.take(entry, since):
                    show(text)
                if self.followed.is_over:
                    break
        except KeyboardInterrupt:
            return "Interrupted."
        except ERRORS as error:
            return f"The log cannot be read: {problem_of(error)}."
        return ""

    @property
    def search(self) -> str:
        """How to find what has started, or may start, unseen."""
        # That the tagging API knows tasks of ECS as soon as they run is a guess.
        tag = f"Key=retry-run-task:origin,Values={self._origin}"
        return (
            "The job may start, or run already. Its tasks: `aws resourcegroupstaggingapi "
            f"get-resources --tag-filters {tag}`."
        )

    def finish(self, problem: str, options: argparse.Namespace) -> int:
        """Stop what is to be stopped, and say how it ended. Returns the exit status."""
        is_stopped = stop(self._ecs, self.followed) if options.stop else True
        end = problem or self.followed.verdict(options.timeout)
        if problem or self.followed.may_start:
            end = f"{end} {self.search}"
            end += " What starts from now on is not stopped." if options.stop else ""
        show(f"\n{line('', end)}\n\n{line('', self.followed.not_verified())}")
        return 0 if self.followed.is_launched and is_stopped else 1


def invoke(lambda_: Any, function: str, event: Mapping[str, Any]) -> str:
    """Invoke the function as EventBridge does; the identifier of its request, if that is known.

    Raises BadInput where Lambda has not taken the event.
    """
    try:
        answer = lambda_.invoke(
            FunctionName=function, InvocationType="Event", Payload=json.dumps(event)
        )
    except ERRORS as error:
        if isinstance(error, NOT_SENT) or _is_refused(error):
            raise BadInput(f"nothing was started: {problem_of(error)}") from error
        say(f"drill: no answer to Invoke ({problem_of(error)}): the function may run all the same")
        return NO_REQUEST
    request_id: str = answer["ResponseMetadata"].get("RequestId", NO_REQUEST)
    return request_id


def _is_refused(error: Exception) -> bool:
    """Has Lambda refused the event, and not failed itself?"""
    if not isinstance(error, ClientError):
        return False
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400) < 500


def stop(ecs: Any, followed: Followed) -> bool:
    """Stop the tasks that were placed. Is none left, as far as is known?"""
    left = list(followed.tasks)
    if followed.is_launched and not left:
        say("drill: the log does not name the task: stop it by hand")
        return False
    try:
        for task in followed.tasks:
            ecs.stop_task(
                cluster=followed.cluster, task=task, reason="Placed by a drill of retry-run-task"
            )
            left.remove(task)
            show(line("", f"Stopped: {task}."))
    except ERRORS as error:
        say(f"drill: not stopped: {', '.join(left)} ({problem_of(error)})")
    except KeyboardInterrupt:
        say(f"drill: interrupted; not stopped: {', '.join(left)}")
    return not left
