"""The operator's client: opens, lists, watches and ends runs. Banks have their own client in `bank_node`."""

from pathlib import Path
from types import TracebackType

import grpc

from protocol import codec
from protocol import crossbank_pb2 as pb
from protocol import crossbank_pb2_grpc as rpc
from protocol.channel import TlsFiles, open_channel, open_channel_async
from protocol.messages import RunSettings, RunView
from protocol.status import error_of_call

__all__ = ["OperatorClient", "fetch_run_async", "list_runs_async"]

_DEADLINE_SECONDS = 30.0


class OperatorClient:
    """A blocking client with a deadline on every call. Use it as a context manager."""

    def __init__(self, address: str, files: TlsFiles) -> None:
        """Connect to ``host:port`` as the operator whose files are given."""
        self._address = address
        self._channel = open_channel(address, files)
        self._stub = rpc.ConsortiumStub(self._channel)

    def __enter__(self) -> "OperatorClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def open_run(self, settings: RunSettings) -> str:
        """Open a run and return its id."""
        return self._view(lambda: self._stub.OpenRun(codec.settings_to_pb(settings), timeout=_DEADLINE_SECONDS)).run_id

    def get_run(self, run_id: str, events_after: int = -1) -> RunView:
        """One run with the events after a sequence number."""
        ref = pb.RunRef(run_id=run_id, events_after=events_after + 1)
        return self._view(lambda: self._stub.GetRun(ref, timeout=_DEADLINE_SECONDS))

    def abort_run(self, run_id: str, reason: str) -> RunView:
        """End a run."""
        request = pb.AbortRequest(run_id=run_id, reason=reason)
        return self._view(lambda: self._stub.AbortRun(request, timeout=_DEADLINE_SECONDS))

    def list_runs(self, most: int = 100) -> list[RunView]:
        """The newest runs first."""
        try:
            answer = self._stub.ListRuns(pb.ListRunsRequest(most=most), timeout=_DEADLINE_SECONDS)
        except grpc.RpcError as error:
            raise error_of_call(error, self._address) from error
        return [codec.view_from_pb(view) for view in answer.runs]

    def _view(self, call) -> RunView:  # type: ignore[no-untyped-def]
        try:
            return codec.view_from_pb(call())
        except grpc.RpcError as error:
            raise error_of_call(error, self._address) from error


async def fetch_run_async(address: str, ca: str, certificate: str, key: str, run_id: str) -> RunView:
    """One run without its events, for an Airflow trigger; the arguments are paths, never secrets.

    Raises:
        AggregatorUnreachable: no answer in time; try again.
    """
    files = TlsFiles(ca=Path(ca), certificate=Path(certificate), key=Path(key))
    async with open_channel_async(address, files) as channel:
        ref = pb.RunRef(run_id=run_id, events_after=(1 << 62))
        try:
            answer = await rpc.ConsortiumStub(channel).GetRun(ref, timeout=_DEADLINE_SECONDS)
        except grpc.RpcError as error:
            raise error_of_call(error, address) from error
        return codec.view_from_pb(answer)


async def list_runs_async(address: str, ca: str, certificate: str, key: str, most: int = 100) -> list[RunView]:
    """The newest runs that the caller may see, for an Airflow trigger."""
    files = TlsFiles(ca=Path(ca), certificate=Path(certificate), key=Path(key))
    async with open_channel_async(address, files) as channel:
        try:
            answer = await rpc.ConsortiumStub(channel).ListRuns(
                pb.ListRunsRequest(most=most), timeout=_DEADLINE_SECONDS
            )
        except grpc.RpcError as error:
            raise error_of_call(error, address) from error
        return [codec.view_from_pb(view) for view in answer.runs]
