"""Asks ECS again for tasks that it accepted but could not place: read, decide, act."""
