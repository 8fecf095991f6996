"""Looks at who calls before a call is read: no message, and no thread of the node, is waited for by a stranger.

gRPC's server takes a unary call's message before it calls the method. Here every method is served as one that takes a
stream, which is the same on the wire, so that `AccessControl.admit` comes first; the one message is then taken from
the stream. While the node waits for a caller, the call says so, and `AccessControl.enforce` ends those that wait long.
"""

from collections.abc import Callable, Iterator
from typing import Any

import grpc

from aggregator.rpc.access import AccessControl, Call

__all__ = ["CallGate"]

Behaviour = Callable[[Any, grpc.ServicerContext], Any]


class CallGate(grpc.ServerInterceptor):
    """Wraps every method of every service."""

    def __init__(self, access: AccessControl) -> None:
        self._access = access

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Any], details: grpc.HandlerCallDetails
    ) -> Any:
        """The method's handler, behind the gate."""
        handler = continuation(details)
        if handler is None:
            return None
        behave = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        single = not handler.request_streaming
        wrapped = (self._many if handler.response_streaming else self._one)(behave, details.method, single)
        return handler._replace(
            request_streaming=True,
            unary_unary=None,
            unary_stream=None,
            stream_unary=None if handler.response_streaming else wrapped,
            stream_stream=wrapped if handler.response_streaming else None,
        )

    def _one(self, behave: Behaviour, method: str, single: bool) -> Behaviour:
        def gated(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            call = self._access.admit(context, method)
            return behave(self._argument(requests, call, single), context)

        return gated

    def _many(self, behave: Behaviour, method: str, single: bool) -> Behaviour:
        def gated(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            call = self._access.admit(context, method)
            for answer in behave(self._argument(requests, call, single), context):
                self._access.waits(call, True)
                yield answer
                self._access.waits(call, False)

        return gated

    def _argument(self, requests: Iterator[Any], call: Call, single: bool) -> Any:
        messages = self._timed(requests, call)
        if not single:
            return messages
        message = next(messages, None)
        if message is None:
            call.context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this call needs a message")
        return message

    def _timed(self, requests: Iterator[Any], call: Call) -> Iterator[Any]:
        while True:
            self._access.waits(call, True)
            message = next(requests, None)
            self._access.waits(call, False)
            if message is None:
                return
            yield message
