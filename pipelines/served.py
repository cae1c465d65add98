"""One worker of `recdistill serve`: a checked model behind the guard, on a socket that it was given.

    python -m pipelines.served SOCKET MODEL WHICH

It says `ready` when it answers. Told to `leave` it closes each connection after the next answer; when nobody is there
to tell it anything more it takes nothing new, answers what it took, and ends.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import uvicorn

    from recdistill.guarded import Doing

READY, LEAVE = "ready", "leave"
PATIENCE = 60  # seconds in which requests that were taken are answered
KEPT = 75  # seconds that a connection is kept without a request: longer than what balancers before it keep theirs


def main(words: Sequence[str]) -> int:
    """Serve until told to end; returns the exit code."""
    number, model, which = words
    speak = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no word of ours
    from recdistill.guarded import Doing, guarded

    doing = Doing()
    begun: list[uvicorn.Server] = []
    Thread(target=_obey, args=(doing, begun), daemon=True).start()
    import uvicorn

    from recdistill.scoring_app import scoring_app

    app = guarded(scoring_app(Path(model)), json.loads(which), doing)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="off",
        timeout_keep_alive=KEPT,
        timeout_graceful_shutdown=PATIENCE,
    )
    begun.append(server := uvicorn.Server(config))
    Thread(target=_announce, args=(server, speak), daemon=True).start()
    server.run(sockets=[socket.socket(fileno=int(number))])
    return 0


def _announce(server: uvicorn.Server, speak: IO[str]) -> None:
    while not server.started:
        time.sleep(0.02)
    with suppress(OSError):  # where nobody listens any more, the other thread knows
        speak.write(f"{READY}\n")
        speak.flush()


def _obey(doing: Doing, begun: list[uvicorn.Server]) -> None:
    for line in sys.stdin:
        doing.leaving = doing.leaving or line.strip() == LEAVE
    if not begun:
        os._exit(1)  # there is nobody to be ready for
    begun[0].should_exit = True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
