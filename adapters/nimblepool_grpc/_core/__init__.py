"""One gRPC channel on trio, over grpcio's own core: bytes in, bytes out, and no pool.

This package is the only place that touches `grpc._cython.cygrpc`, which is not public; `_fit` says at import whether
the installed grpcio has all of it.
"""

from . import _cygrpc as _cygrpc  # first: it says what to do where grpcio is missing, or does not fit
from ._call import CoreCall
from ._channel import CoreChannel
from ._errors import CallEnded, ChannelClosed
from ._metadata import Metadata
from ._status import Status

__all__ = ["CallEnded", "ChannelClosed", "CoreCall", "CoreChannel", "Metadata", "Status"]
