"""Processes: the tasks of a replay side by side, each in a process of its own, and what they report."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import msgspec

from clickscore.stream.errors import ClickscoreError, WorkerDiedError
from clickscore.stream.replay.run import Progress, Result, Task, work


class _Failed(msgspec.Struct, frozen=True, tag="failed"):
    """Why a process could not go on, in words."""

    error: str


class _Reported(msgspec.Struct, frozen=True, tag="progress"):
    progress: Progress


class _Done(msgspec.Struct, frozen=True, tag="done"):
    result: Result


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Failed | _Reported | _Done).decode


def run_tasks(tasks: Sequence[Task], report: Callable[[list[Progress]], None]) -> list[Result]:
    """Return what the tasks came to, in their order; a single one is done in this process.

    Args:
        tasks: At least one.
        report: Is told now and then how far each has come.

    Raises:
        ClickscoreError: What stopped one of them; the others are ended.
        WorkerDiedError: One of them ended by itself.
    """
    progress = [Progress(0, 0, 0) for _ in tasks]
    if len(tasks) == 1:
        return [work(tasks[0], lambda one: report([one]))]
    context = multiprocessing.get_context("spawn")  # a fork would take ONNX Runtime's threads for its own
    pipes = [context.Pipe(duplex=False) for _ in tasks]
    children = [
        context.Process(target=_child, args=(task, sending, os.getpid()), daemon=True)
        for task, (_, sending) in zip(tasks, pipes, strict=True)
    ]
    results: dict[int, Result] = {}
    try:
        for child, (_, sending) in zip(children, pipes, strict=True):
            child.start()
            sending.close()  # so that its end is the child's end
        open_ones = {receiving: number for number, (receiving, _) in enumerate(pipes)}
        while open_ones:
            for ready in wait(list(open_ones)):
                number = open_ones[ready]  # pyright: ignore[reportArgumentType]  (they are what we gave)
                message = _next(ready, children[number])  # pyright: ignore[reportArgumentType]
                if isinstance(message, _Failed):
                    raise ClickscoreError(message.error)
                if isinstance(message, _Reported):
                    progress[number] = message.progress
                    report(progress)
                else:
                    results[number] = message.result
                    del open_ones[ready]  # pyright: ignore[reportArgumentType]
        return [results[number] for number in range(len(tasks))]
    finally:
        for child in children:
            if child.pid:
                child.kill()
                child.join()


def _next(receiving: "Connection[bytes, bytes]", child: BaseProcess) -> _Failed | _Reported | _Done:
    try:
        return _decode(receiving.recv_bytes())
    except EOFError:
        child.join()
        message = f"a process of the replay ended by itself (exit code {child.exitcode}); go on with --resume"
        raise WorkerDiedError(message) from None


def _child(task: Task, sending: "Connection[bytes, bytes]", parent: int) -> None:
    """Do a task in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends us

    def report(progress: Progress) -> None:
        if os.getppid() != parent:
            os._exit(1)  # nobody waits for us any more
        sending.send_bytes(_encode(_Reported(progress)))

    try:
        sending.send_bytes(_encode(_Done(work(task, report))))
    except ClickscoreError as exc:
        sending.send_bytes(_encode(_Failed(str(exc))))
