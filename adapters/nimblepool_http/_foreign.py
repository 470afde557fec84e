"""The name for what belongs to either pair of libraries."""

from __future__ import annotations

from typing import Any, TypeAlias

Foreign: TypeAlias = Any
"""An object, class or module of httpx and httpcore, or the same of httpx2 and httpcore2. Their types differ by identity
alone, so that no common one can be named."""
