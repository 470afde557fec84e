"""What happens to resources and clients, wherever they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .scene import Scene


async def kill(scene: Scene) -> None:
    """Let a resource die."""
    recent = scene.worker.resources[-20:]
    if recent:
        scene.rng.choice(recent).kill()


async def cancel(scene: Scene) -> None:
    """Cancel a client, whatever it does at the moment."""
    scene.rng.choice(list(scene.scopes.values())).cancel()
