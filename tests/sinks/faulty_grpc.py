"""A local gRPC server for the faults that real ones cannot be made to show."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from tests.services.process import HOST

Context = Any  # grpc.aio.ServicerContext, which is generic to type checkers alone
Reply = Callable[[bytes, Context], Awaitable[bytes]]


@dataclass(slots=True)
class Call:
    """One call that came."""

    method: str
    metadata: dict[str, str | bytes]
    body: bytes


@dataclass(slots=True)
class FaultyGrpc(grpc.GenericRpcHandler):
    """Answers the n-th call with the n-th reply, and all further ones with the last; takes any method and bytes."""

    replies: list[Reply]
    seen: list[Call] = field(default_factory=list)
    url: str = ""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """What handles a method: every one the same."""

        async def handle(body: bytes, context: Context) -> bytes:
            reply = self.replies[min(len(self.seen), len(self.replies) - 1)]
            self.seen.append(Call(details.method, dict(context.invocation_metadata() or ()), body))
            return await reply(body, context)

        return grpc.unary_unary_rpc_method_handler(handle)


async def ok(body: bytes, context: Context) -> bytes:
    """Everything is accepted."""
    return b""


def answer(message: bytes) -> Reply:
    """A success with this message."""

    async def reply(body: bytes, context: Context) -> bytes:
        return message

    return reply


def failure(code: grpc.StatusCode, text: str = "", retry_in: float | None = None) -> Reply:
    """A status; `retry_in` seconds as RetryInfo."""

    async def reply(body: bytes, context: Context) -> bytes:
        trailing: tuple[tuple[str, bytes], ...] = ()
        if retry_in is not None:
            info = RetryInfo()
            info.retry_delay.FromNanoseconds(int(retry_in * 1e9))
            status = Status(code=code.value[0], message=text)
            status.details.add().Pack(info)
            trailing = (("grpc-status-details-bin", status.SerializeToString()),)
        await context.abort(code, text, trailing)
        raise AssertionError("abort raises")

    return reply


@asynccontextmanager
async def faulty_grpc(*replies: Reply) -> AsyncIterator[FaultyGrpc]:
    """A server on a free port for as long as the block lasts."""
    handler = FaultyGrpc(list(replies))
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers([handler])
    handler.url = f"http://{HOST}:{server.add_insecure_port(f'{HOST}:0')}"
    await server.start()
    try:
        yield handler
    finally:
        await server.stop(0)
