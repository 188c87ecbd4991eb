# SPDX-License-Identifier: Apache-2.0
"""Start workers and ask them, each in a process of its own."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

from gpu_comparison.plan import Contender

REPOSITORY = Path(__file__).resolve().parent.parent.parent


class WorkerError(RuntimeError):
    """A request that was not answered, or with an error.

    Attributes:
        ended: Whether the process is gone, and with it everything that it had prepared.
        impossible: Whether the library cannot do it by its nature, which is not a failure.
    """

    def __init__(self, reason: str, ended: bool = False, impossible: bool = False):
        super().__init__(reason)
        self.ended, self.impossible = ended, impossible


def environment(**more: str) -> dict[str, str]:
    """Return the environment for processes that import ``stdc_core`` and ``gpu_comparison``."""
    paths = [str(REPOSITORY), str(REPOSITORY / 'benchmarks'), os.environ.get('PYTHONPATH')]
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths)), **more}


def reason_of(status: int, said: str) -> str:
    """Return how a process ended, and the last line that it said."""
    how = f'exit status {status}' if status >= 0 else signal.Signals(-status).name
    return ': '.join([how, *said.strip().splitlines()[-1:]])


class WorkerProcess:
    """A worker in a process.

    Args:
        command: Command that serves requests, see ``worker``.
        log: Path of the file for what it prints.
        variables: Environment.
    """

    def __init__(self, command: list[str], log: Path, variables: dict[str, str]):
        self._log = log
        self._lines: queue.Queue[str | None] = queue.Queue()
        with log.open('w') as file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env=variables,
                start_new_session=True,
            )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def ask(self, do: str, seconds: float, contender: Contender | None = None, runs: int = 1) -> dict[str, Any]:
        """Return what the worker found.

        Args:
            do: Name of the request, see ``worker``.
            seconds: Time limit. The process is ended after it.
            contender: Contender of the request.
            runs: Number of runs.

        Raises:
            WorkerError: The library failed, the process ended, or time ran out.
        """
        request = {'do': do, 'contender': contender, 'runs': runs}
        assert self._process.stdin is not None
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            line = self._lines.get(timeout=max(0.0, seconds))
        except queue.Empty:
            self.close()
            raise WorkerError(f'no answer within {seconds:.0f} s', ended=True) from None
        except OSError:  # the process is gone
            line = None
        if line is None:
            status = self._process.wait()
            raise WorkerError(reason_of(status, self._log.read_text(errors='replace')), ended=True)
        answer = json.loads(line)
        if 'found' not in answer:
            reason = answer.get('impossible') or answer['error']
            raise WorkerError(reason, impossible='impossible' in answer)
        return answer['found']

    def close(self) -> None:
        """End the process, and those that it started: torch.compile has some."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
