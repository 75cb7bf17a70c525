"""The log of the pod that tells how a training job goes, told as it grows."""

import threading
from collections.abc import Callable
from typing import Any

from pipelines import events
from pipelines.submit.kubernetes_api import KubernetesApi

__all__ = ["Rank0Log"]

_SECONDS_BETWEEN = 2.0
"""From the end of a connection to the next."""
_LAST_WORDS = {"preempted", "result"}
"""After one of these a worker that means it ends; one that goes on says other things."""
_PROGRESS = {"resumed", "step"}


class Rank0Log:
    """One pod's, read by a thread of its own."""

    def __init__(
        self,
        api: KubernetesApi,
        pod: str,
        on_event: Callable[[dict[str, Any]], None],
        on_line: Callable[[str], None],
    ) -> None:
        self.error: BaseException | None = None
        """What a listener has raised, for the thread that waits to raise again."""
        self.last_word = ""
        """``preempted`` or ``result``, once it has said so and done nothing since."""
        self._api = api
        self._pod = pod
        self._on_event = on_event
        self._on_line = on_line
        self._seen = ""
        self._left = False
        self._pod_ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def finish(self, seconds: float) -> None:
        """Its pod ends: let it be told to its end, for ``seconds`` at most, and no further."""
        self._pod_ended.set()
        self._thread.join(seconds)
        self._left = True

    def _read(self) -> None:
        """Tell it to its end, however often the connection breaks."""
        try:
            while True:
                last = self._pod_ended.is_set()  # what came before is then read to its end
                for when, line in self._api.follow(self._pod, self._seen):
                    if self._left:
                        return
                    self._seen = when
                    self._tell(line)
                if last:
                    return
                self._pod_ended.wait(_SECONDS_BETWEEN)
        except BaseException as error:  # raised again by the thread that waits
            self.error = error

    def _tell(self, line: str) -> None:
        event = events.parse(line)
        if event is None:
            self._on_line(line)
            return
        if event["event"] in _LAST_WORDS:
            self.last_word = event["event"]
        elif event["event"] in _PROGRESS:
            self.last_word = ""
        self._on_event(event)
