"""`recdistill serve` in a process of its own, and how to ask it."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from threading import Timer

ROOT = Path(__file__).parents[1]
START = 180  # seconds a server may take on a busy machine


class Server:
    """A server, from its first answer to the end of the block; nothing of it outlives that."""

    def __init__(self, words, home: Path) -> None:
        self.words, self.log = words, home / "server.log"

    def __enter__(self) -> Server:
        command = [sys.executable, "-m", "pipelines", "serve", "--port", "0", *self.words]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        clock = Timer(START, self.process.kill)
        clock.start()
        said = self.process.stdout.readline()
        clock.cancel()
        found = re.search(r"answers at http://(127\.0\.0\.1):(\d+)/invocations$", said.strip())
        assert found, said + self.log.read_text()[-3000:]
        self.address = found[1], int(found[2])
        return self

    def __exit__(self, *_) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()  # workers end when nobody is there to tell them anything more
            self.process.wait()
        self.process.stdout.close()

    def send(self, data: bytes, media: str | None = "application/json") -> tuple[int, str]:
        """Send a body on a connection of its own."""
        line = http.client.HTTPConnection(*self.address, timeout=60)
        try:
            line.request("POST", "/invocations", data, {} if media is None else {"content-type": media})
            answer = line.getresponse()
            return answer.status, answer.read().decode()
        finally:
            line.close()

    def ask(self, body):
        """Send JSON; returns the status, and the answer as a value, or of an error its text."""
        status, text = self.send(json.dumps(body).encode())
        return status, json.loads(text) if status == 200 else text
