"""AWS on your desk, in virtual time: rule, Lambda, CloudTrail and scarce ECS around the handler."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
EVENTS = ROOT / "events"

# <verdict>.<situation>
EVENT_NAMES = sorted(path.stem for path in EVENTS.glob("*.json"))


def load_event(name: str) -> dict[str, Any]:
    """The event of `events/<name>.json`, fresh."""
    event: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text("utf-8"))
    return event
