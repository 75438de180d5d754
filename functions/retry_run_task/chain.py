"""Where a job stands: the counter that its tags carry, its budget, and the names built on them."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

from retry_run_task.failed_call import EVENT_ID, read_time, write_time
from retry_run_task.request import HIDDEN, NotExact
from retry_run_task.settings import Settings

ATTEMPT_TAG = "retry-run-task:attempt"
ORIGIN_TAG = "retry-run-task:origin"
SINCE_TAG = "retry-run-task:since"
MAX_ATTEMPTS_TAG = "retry-run-task:max-attempts"
CHAIN_TAGS = (ATTEMPT_TAG, ORIGIN_TAG, SINCE_TAG)

# The definition whose environment was sent (see source.py): an ARN, @, and a checksum.
DEFINITION_TAG = "retry-run-task:definition"
# The attempt's client token, where it is not the one of its number: whether CloudTrail shows a
# call's token is not known, and no token may be passed over.
TOKEN_TAG = "retry-run-task:token"  # noqa: S105 - the name of a tag, no password
OUR_TAGS = (*CHAIN_TAGS, DEFINITION_TAG, TOKEN_TAG)

# The longest budget that a stack (MaxAttempts) or a job (its tag) can have.
MAX_BUDGET = 100

# How many attempts of a chain are pulled forward, each at no cost: it ends all the same.
MAX_FORWARDED = 100

# What an SDK fills in as the client token of a call, where its caller gives none (version 4).
_RANDOM_UUID = re.compile(
    "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE
)

_NUMBER = re.compile("[1-9][0-9]{0,5}")
# This attempt and the budget's end; how many were pulled forward, if any were; and if this one was,
# for when it was planned: `5/12 2 2026-11-23T00:00:04Z`.
_COUNTER = re.compile(
    "([1-9][0-9]{0,5})/([1-9][0-9]{0,5})(?: ([1-9][0-9]{0,2})(?: ([0-9TZ:-]{20}))?)?"
)

# The request's tags, as RunTask takes them: `key` and `value`, both optional.
Tags = Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Chain:
    """Where a job stands: attempt `attempt` of at most `end`. The origin itself is attempt 0.

    `since` is when the first call failed, and `replayed` for when the first attempt of the last
    replay was scheduled. `attempt` is None where the counter cannot be read. `forwarded` is how
    many of the attempts were pulled forward, because another job of their pool was launched; if the
    attempt itself was, `planned` is for when it was scheduled before.
    """

    origin: str
    since: datetime
    attempt: int | None
    end: int
    replayed: datetime | None = None
    forwarded: int = 0
    planned: datetime | None = None

    @property
    def counter(self) -> str:
        """As the tag holds it: `3/10`."""
        return f"{'unknown' if self.attempt is None else self.attempt}/{self.end}"

    @property
    def made(self) -> int:
        """How many attempts were made."""
        return self.attempt or 0

    @property
    def step(self) -> int:
        """The next attempt's step of the backoff: what was pulled forward does not count."""
        return self.made + 1 - self.forwarded

    @property
    def aged_from(self) -> datetime:
        """From when on its age counts."""
        return self.replayed or self.since

    @property
    def tags(self) -> list[dict[str, str]]:
        """What the next failure of this chain must know, as tags of the request."""
        counter = self.counter
        if self.forwarded:
            counter += f" {self.forwarded}"
        if self.planned:
            counter += f" {write_time(self.planned)}"
        times = (self.since, self.replayed) if self.replayed else (self.since,)
        values = (counter, self.origin, " ".join(map(write_time, times)))
        return [{"key": k, "value": v} for k, v in zip(CHAIN_TAGS, values, strict=True)]

    def one_further(self) -> Self:
        """The chain at its next attempt."""
        return replace(self, attempt=self.made + 1, planned=None)

    def pulled_forward(self, planned: datetime) -> Self:
        """The chain at its next attempt, which was pulled forward: it takes nothing of the budget.

        It was `planned` for then.
        """
        further = self.one_further()
        return replace(further, end=self.end + 1, forwarded=self.forwarded + 1, planned=planned)

    def one_back(self) -> Self:
        """The chain without the attempt that it is at: that one could not be made."""
        end = self.end if self.planned is None else self.end - 1
        return replace(self, attempt=self.made - 1, end=end)


def origin_of(event_id: str, token: object) -> str:
    """The name of the chain that begins with a call: its client token, or its event's identifier.

    An SDK that lost the answer repeats the call under the token that it has made for it, and ECS
    answers again (ECS_Idempotency): these are two events, but one call.
    """
    return token if isinstance(token, str) and _RANDOM_UUID.fullmatch(token) else event_id


def budget_in(tags: Tags) -> tuple[int | None, str]:
    """The job's own budget, None without one, and a note where it has one that cannot be read."""
    text = tag_value(tags, MAX_ATTEMPTS_TAG)
    if text is None:
        return None, ""
    if re.fullmatch("[0-9]{1,3}", text) and int(text) <= MAX_BUDGET:
        return int(text), ""
    return (
        None,
        f"The job's tag {MAX_ATTEMPTS_TAG} is not a whole number from 0 to {MAX_BUDGET}.",
    )


def chain_in(tags: Tags, client_token: object) -> Chain | None:
    """The chain that the tags of a call belong to; None without such tags.

    Raises NotExact where they hold half of one: a counter that cannot be read stops the chain.
    And where they were copied from one of our tasks to another, as the call's own client token
    shows: that task is another job, whose attempts would meet the tokens of the first.
    """
    attempt, origin, since = (tag_value(tags, key) for key in CHAIN_TAGS)
    if attempt is None and origin is None and since is None:
        return None
    counter = _COUNTER.fullmatch(attempt or "")
    if counter is None or int(counter[2]) - int(counter[1]) >= MAX_BUDGET:
        raise NotExact(f"tags[{ATTEMPT_TAG}]", "is not a counter like 3/10")
    forwarded, planned = int(counter[3] or 0), read_time(counter[4])
    if forwarded >= int(counter[1]) or forwarded > MAX_FORWARDED:  # attempt 1 never is
        raise NotExact(f"tags[{ATTEMPT_TAG}]", "counts too many attempts that were pulled forward")
    if counter[4] and planned is None:
        raise NotExact(f"tags[{ATTEMPT_TAG}]", "has no time like 2026-11-23T00:00:04Z at its end")
    if not EVENT_ID.fullmatch(origin or ""):
        raise NotExact(f"tags[{ORIGIN_TAG}]", "is not an event's identifier")
    if (
        isinstance(client_token, str)
        and client_token != HIDDEN
        and not client_token.startswith(f"{origin}-")
    ):
        raise NotExact(f"tags[{ORIGIN_TAG}]", "was copied from another task")
    first, space, second = (since or "").partition(" ")
    moment, replayed = read_time(first), read_time(second)
    if moment is None or bool(space) != bool(replayed):
        raise NotExact(f"tags[{SINCE_TAG}]", "is not a time like 2026-11-23T00:00:04Z, or two")
    attempt_made, end = int(counter[1]), int(counter[2])
    return Chain(origin or "", moment, attempt_made, end, replayed, forwarded, planned)


def client_token(chain: Chain, last: object, *, unspent: bool) -> str:
    """The token for the attempt that the chain is at: `<origin>-<number>`, at most 43 characters.

    `last` is the token of the call before, if the call tells, and `unspent` whether ECS did not
    bind that one. Tokens are used up one after the other, and none is passed over. ECS binds a
    token to what the first call with it came to (ECS_Idempotency), so that of two invocations with
    one token only one can start the job.
    """
    used = _number_in(last, chain.origin)
    if used is None or used >= chain.made:
        return f"{chain.origin}-{chain.made}"
    if unspent:
        return f"{chain.origin}-{used}"
    return f"{chain.origin}-{used + 1}"


def token_in(tags: Tags, shown: object) -> object:
    """The client token of a call of the chain: as it is shown, or else by its tag.

    Without both, it is the one of the attempt's number: None.
    """
    return tag_value(tags, TOKEN_TAG) if shown in (None, HIDDEN) else shown


def token_tags(chain: Chain, token: str) -> list[dict[str, str]]:
    """The tag that shows an attempt's token, where its number does not."""
    is_shown = token == f"{chain.origin}-{chain.made}"
    return [] if is_shown else [{"key": TOKEN_TAG, "value": token}]


def pool_of(parameters: Mapping[str, Any], settings: Settings) -> str:
    """The capacity that a call draws on, in eight hex digits.

    That is its cluster with its launch type, or with its capacity providers: Fargate is both. What
    names neither takes what the cluster has, and is a pool of its own.
    """
    cluster = settings.arn("cluster", str(parameters.get("cluster") or "default"))
    strategy = parameters.get("capacityProviderStrategy")
    items = strategy if isinstance(strategy, list) else []
    providers = sorted(str(i.get("capacityProvider")) for i in items if isinstance(i, dict))
    return _short(" ".join([cluster, *(providers or [str(parameters.get("launchType") or "")])]))


def schedule_name(chain: Chain, pool: str, replay_name: str | None) -> str:
    """The name of the schedule of the attempt that the chain is at; at most 58 characters.

    Duplicates of one event have one name, and so have two letters of one chain in one replay. The
    cluster is in it, with the pool, because client tokens are a cluster's own (ECS_Idempotency): a
    caller may use one for calls to several. The three digits after it divide the pool evenly,
    whatever the origins are.
    """
    which = chain.attempt if replay_name is None else _short(replay_name)
    return f"{pool}-{_short(chain.origin)[:3]}-{chain.origin}-{which}"


def is_replays(name: str) -> bool:
    """Is it the schedule of a replay? Those end in eight hex digits, others in an attempt."""
    return _NUMBER.fullmatch(name.rpartition("-")[2]) is None


def _short(text: str) -> str:
    """Eight hex digits that depend on the text."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]


def without_ours(tags: Tags) -> list[dict[str, str]]:
    """The tags without ours: the caller's own."""
    return [dict(tag) for tag in tags if tag.get("key") not in OUR_TAGS]


def _number_in(client_token: object, origin: str) -> int | None:
    """The number of a token of this chain; None for what is no such token."""
    text, prefix = str(client_token), f"{origin}-"
    number = text[len(prefix) :]
    return int(number) if text.startswith(prefix) and _NUMBER.fullmatch(number) else None


def tag_value(tags: Tags, key: str) -> str | None:
    """The tag's value, None without such a tag; two of them are as good as an unreadable one."""
    values = [tag.get("value", "") for tag in tags if tag.get("key") == key]
    return values[0] if len(values) == 1 else ("" if values else None)
