"""What the template gives this function, read once for each invocation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the function is, where it publishes, and what its messages refer to.

    `is_chat` says that https subscribers get the form of Amazon Q Developer. `start_replay` is the
    command with START and END in place of its two times.
    """

    partition: str
    region: str
    account: str
    topic_arn: str
    is_chat: bool
    start_replay: str
    log_group: str
    query: str

    @classmethod
    def read(cls, environ: Mapping[str, str], function_arn: str) -> Self:
        """Settings from the template's variables, and from the ARN that was invoked.

        Raises KeyError with the variable's name where one is missing.
        """
        _, partition, _, region, account = function_arn.split(":")[:5]
        return cls(
            partition=partition,
            region=region,
            account=account,
            topic_arn=environ["TOPIC_ARN"],
            is_chat=environ["NOTIFICATION_FORMAT"] == "CHAT",
            start_replay=environ["START_REPLAY_COMMAND"],
            log_group=environ["LOG_GROUP"],
            query=environ["LOST_JOBS_QUERY"],
        )
