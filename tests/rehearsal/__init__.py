"""AWS on your desk, in virtual time: rule, Lambda, CloudTrail and scarce ECS around the handler."""

import json
from pathlib import Path
from typing import Any

from rehearsal.uncached import keep_clean

ROOT = Path(__file__).parents[2]
keep_clean(ROOT / "functions")  # before the first module of it is imported
EVENTS = ROOT / "events"

# <verdict>.<situation>; definitions/ holds the rules and schedules that made the calls.
EVENT_NAMES = sorted(path.stem for path in EVENTS.glob("*.json"))


def verdict_of(name: str) -> str:
    """What the rehearsal of an event file comes to, by the file's name."""
    if name == "unmatched.success":
        return "LAUNCHED"  # by its caller
    return name.partition(".")[0].upper().replace("-", "_")


def load_event(name: str) -> dict[str, Any]:
    """The event of `events/<name>.json`, fresh."""
    event: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text("utf-8"))
    return event


def load_definitions(name: str) -> dict[str, Any]:
    """The rules and schedules of `events/definitions/<name>.json`, fresh."""
    definitions: dict[str, Any] = load_event(f"definitions/{name}")
    return definitions
