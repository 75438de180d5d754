"""Look-ups: the account's rules and schedules, for what CloudTrail hides of a call."""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import boto3
from botocore.config import Config
from botocore.model import OperationModel

from account.runs import run_task_shape
from account.session import DENIALS, ERRORS, PATIENT, action_of, client_of, problem_of
from rehearsal.records import BadInput
from retry_run_task.decision import Launch
from retry_run_task.recover import Unread, recover
from retry_run_task.request import NotExact
from retry_run_task.settings import Settings
from retry_run_task.source import hidden_environments


class NotLookedUp(NotExact):
    """What is hidden could perhaps be recovered: nobody has looked."""


class LookUps:
    """What the stack's function would look up, with the user's session, unless `why_not`.

    `not_made` counts the look-ups that were not made, by the reason; `refused`, those that found
    nothing to send.
    """

    def __init__(self, session: boto3.Session | None, why_not: str = "") -> None:
        self.not_made: Counter[str] = Counter()
        self.refused = 0
        self._session, self._why_not = session, why_not
        self._why_not_in: dict[str, str] = {}
        self._clients: dict[tuple[str, str], Any] = {}
        self._account = ""
        self._denied = ""

    def stop(self, why_not: str) -> None:
        """Look up nothing more."""
        self._why_not = why_not

    def problem_with(self, launch: Launch, settings: Settings) -> NotExact | None:
        """Why the environments that a call hides cannot be recovered; None if they can."""
        why = self._why_not or self._why_not_in.get(settings.region, "")
        try:
            why = why or self._recover(launch, settings)
        except NotExact as problem:
            self.refused += 1
            return problem
        except (*ERRORS, BadInput) as error:
            # The next one of the Region would end in the same.
            why = self._why_not_in[settings.region] = problem_of(error)
        if not why:
            return None
        self.not_made[why] += 1
        hidden = hidden_environments(launch.asked)[0]
        return NotLookedUp(hidden, f"is hidden by CloudTrail, and was not looked up: {why}")

    def _recover(self, launch: Launch, settings: Settings) -> str:
        """Why they could not be looked up; empty if they are recovered. Raises NotExact."""
        if settings.account != (own := self._account_in(settings.region)):
            return f"your credentials are those of account {own}"
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
        if isinstance(found, Unread):  # after all tries
            self._why_not_in[settings.region] = f"it ended in {found.error}"
        return self._why_not_in.get(settings.region, "")

    def _account_in(self, region: str) -> str:
        """That of the user's credentials, as AWS says in this Region's partition."""
        assert self._session is not None
        if not self._account:
            sts = client_of(self._session, "sts", region)
            self._account = sts.get_caller_identity()["Account"]
        return self._account

    def _client(self, service: str, region: str) -> Any:
        """A client that makes no request twice: many calls hide what one definition has."""
        assert self._session is not None
        if (service, region) not in self._clients:
            own = PATIENT.merge(Config())  # a client of its own, which keeps answers
            client = client_of(self._session, service, region, own)
            answers: dict[tuple[str, ...], Any] = {}
            client.meta.events.register("before-call", partial(_known, answers))
            client.meta.events.register("after-call", partial(self._keep, answers))
            self._clients[service, region] = client
        return self._clients[service, region]

    def _keep(
        self,
        answers: dict[tuple[str, ...], Any],
        http_response: Any,
        parsed: Any,
        model: OperationModel,
        context: Mapping[str, Any],
        **_: object,
    ) -> None:
        if http_response.status_code >= 300 and parsed["Error"].get("Code") in DENIALS:
            self._denied = f"you are not allowed to call {action_of(model)}"
        answers[context["look-up"]] = (http_response, parsed)


def _known(
    answers: Mapping[tuple[str, ...], Any],
    params: Mapping[str, Any],
    model: OperationModel,
    context: dict[str, Any],
    **_: object,
) -> Any:
    """The answer to an equal call before, which botocore then takes."""
    request = (str(params[part]) for part in ("url", "query_string", "body"))
    context["look-up"] = (model.name, *request)
    return answers.get(context["look-up"])
