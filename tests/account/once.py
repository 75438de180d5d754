"""Questions to AWS that are asked once, however often somebody wants to know."""

from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from account.session import is_denial


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


class Denied:
    """An operation that is not called again, once IAM has denied it."""

    def __init__(self) -> None:
        self._denial: ClientError | None = None

    def ask(self, question: Callable[[], Any]) -> Any:
        """The answer. Raises botocore's exceptions, and the denial for all further questions."""
        if self._denial is not None:
            raise self._denial
        try:
            return question()
        except ClientError as error:
            if is_denial(error):
                self._denial = error
            raise
