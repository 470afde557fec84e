"""Pooled HTTP on trio: ``httpx.AsyncClient(transport=PooledTransport())``.

For httpx2 there is the same in ``nimblepool_http.httpx2``.
"""

from typing import TYPE_CHECKING

from ._lazy import __dir__ as __dir__
from ._lazy import __getattr__ as __getattr__
from ._options import OriginOptions, PoolingOptions

if TYPE_CHECKING:
    from ._httpx import PooledTransport as PooledTransport

__all__ = ["OriginOptions", "PoolingOptions"]
