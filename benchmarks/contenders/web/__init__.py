"""HTTP clients, each with the URLs to ask in turn and how many connections it may have.

Without a limit for the connections, a client keeps its own defaults, its timeouts among them. Otherwise it may also
keep all of its connections, and waits `PATIENCE` for anything: with a timeout that never fires, but is armed.
"""

PATIENCE = 60.0
"""Seconds."""
