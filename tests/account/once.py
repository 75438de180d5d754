"""Questions to AWS that are asked once, however often somebody wants to know."""

from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from account.session import is_denial
from retry_run_task.transient import transient


def once(ask: Callable[[], Any]) -> Callable[[], Any]:
    """The answer, or the error again that it ended in."""
    answers: list[Any] = []
    errors: list[Exception] = []

    def answer() -> Any:
        if errors:
            raise errors[0]
        if not answers:
            try:
                answers.append(ask())
            except (ClientError, BotoCoreError) as error:
                errors.append(error)
                raise
        return answers[0]

    return answer


class Operation:
    """An operation that is not called again once IAM has denied it, or AWS has given no answer."""

    def __init__(self) -> None:
        self._error: Exception | None = None

    def ask(self, question: Callable[[], Any]) -> Any:
        """The answer. Raises botocore's exceptions: of all further questions, the same one."""
        if self._error is not None:
            raise self._error
        try:
            return question()
        except (ClientError, BotoCoreError) as error:
            if is_denial(error) or transient(error) is not None:
                self._error = error
            raise
