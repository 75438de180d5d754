"""Look-ups: the account's rules and schedules, for what CloudTrail hides of a call."""

from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.model import OperationModel

from account.runs import run_task_shape
from account.session import DENIED, problem_of
from retry_run_task.decision import Launch
from retry_run_task.recover import Unread, recover
from retry_run_task.request import NotExact
from retry_run_task.settings import Settings
from retry_run_task.source import not_recovered
from retry_run_task.transient import transient

# Reads of an account with many schedules are throttled: the SDK waits, for up to 20 s each time.
TRIES = 10
CLIENT_CONFIG = Config(retries={"mode": "standard", "total_max_attempts": TRIES})


class LookUps:
    """What the stack's function would look up, with the user's session, unless `why_not`.

    `not_made` counts look-ups that were not made, by the reason, and `refused` those in vain.
    """

    def __init__(self, session: boto3.Session | None, why_not: str = "") -> None:
        self.not_made: Counter[str] = Counter()
        self.refused = 0
        self._session, self._why_not = session, why_not
        self._clients: dict[tuple[str, str], Any] = {}
        self._answers: dict[tuple[str, ...], Any] = {}
        self._denied = ""

    def stop(self, why_not: str) -> None:
        """Look up nothing more."""
        self._why_not = why_not

    def problem_with(self, launch: Launch, settings: Settings) -> NotExact | None:
        """Why the environments that a call hides cannot be recovered; None if they can."""
        try:
            why = self._why_not or self._recover(launch, settings)
        except NotExact as problem:
            self.refused += 1
            return problem
        except (ClientError, BotoCoreError) as error:
            why = problem_of(error)
            if not transient(error):  # the next one would end in the same
                self.stop(why)
        if not why:
            return None
        self.not_made[why] += 1
        return not_recovered(launch.asked, f"was not looked up: {why}")

    def _recover(self, launch: Launch, settings: Settings) -> str:
        """Why they could not be looked up; empty if they are recovered. Raises NotExact."""
        if settings.account != self._account:
            return f"your credentials are those of account {self._account}"
        assert launch.source is not None
        self._denied = ""
        try:
            found = recover(
                launch.asked,
                launch.source,
                settings,
                run_task_shape(),
                lambda: self._client("events", settings.region),
                lambda: self._client("scheduler", settings.region),
            )
        except NotExact:
            if self._denied:  # which the function would have reported as a denial of its own
                return self._denied
            raise
        return f"AWS answered {found.error}" if isinstance(found, Unread) else ""

    @cached_property
    def _account(self) -> str:
        assert self._session is not None
        account: str = self._session.client("sts").get_caller_identity()["Account"]
        return account

    def _client(self, service: str, region: str) -> Any:
        """A client that has each answer but once: many calls hide what one definition has."""
        assert self._session is not None
        if (service, region) not in self._clients:
            client: Any = self._session.client(service, region_name=region, config=CLIENT_CONFIG)  # type: ignore[call-overload] # one of two names
            client.meta.events.register("before-call", self._known)
            client.meta.events.register("after-call", self._keep)
            self._clients[service, region] = client
        return self._clients[service, region]

    def _known(
        self, params: Mapping[str, Any], model: OperationModel, context: dict[str, Any], **_: Any
    ) -> Any:
        """The answer to an equal call before, which botocore then takes."""
        request = (params[part] for part in ("url", "query_string", "body"))
        context["look-up"] = (model.name, *map(str, request))
        return self._answers.get(context["look-up"])

    def _keep(
        self,
        http_response: Any,
        parsed: Any,
        model: OperationModel,
        context: Mapping[str, Any],
        **_: Any,
    ) -> None:
        if http_response.status_code >= 300:
            error = ClientError(parsed, model.name)
            if transient(error):
                return
            if parsed["Error"].get("Code") in DENIED:
                self._denied = problem_of(error)
        self._answers[context["look-up"]] = (http_response, parsed)
