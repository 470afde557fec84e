"""The servers that clients are measured against, each in a process of its own, on another core than the clients."""
