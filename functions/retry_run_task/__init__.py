"""Retries RunTask calls that ECS accepted but could not place: read, decide, act."""
