"""Processes: run the tasks of a replay side by side, each in a process of its own, and collect the results."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import msgspec

from clickscore.schemas.errors import ClickscoreError
from clickscore.stream.errors import WorkerDiedError
from clickscore.stream.replay.task import ReplayProgress, ReplayTask, TaskResult, run_task

OnProgress = Callable[[list[ReplayProgress]], None]
"""Receives the progress of all processes now and then."""


class _TaskFailed(msgspec.Struct, frozen=True, tag="failed"):
    error: str


class _TaskProgressed(msgspec.Struct, frozen=True, tag="progress"):
    progress: ReplayProgress


class _TaskFinished(msgspec.Struct, frozen=True, tag="done"):
    result: TaskResult


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_TaskFailed | _TaskProgressed | _TaskFinished).decode


def run_tasks(tasks: Sequence[ReplayTask], on_progress: OnProgress) -> list[TaskResult]:
    """Return the results of tasks, in their order. A single task runs in the calling process.

    Raises:
        ClickscoreError: A task failed; the processes of the remaining tasks are killed.
        WorkerDiedError: A process died.
    """
    progress = [ReplayProgress(0, 0, 0) for _ in tasks]
    if len(tasks) == 1:
        return [run_task(tasks[0], lambda task_progress: on_progress([task_progress]))]
    context = multiprocessing.get_context("spawn")  # a forked child would share the threads of ONNX Runtime
    pipes = [context.Pipe(duplex=False) for _ in tasks]
    children = [
        context.Process(target=_run_child, args=(task, sender, os.getpid()), daemon=True)
        for task, (_, sender) in zip(tasks, pipes, strict=True)
    ]
    results: dict[int, TaskResult] = {}
    try:
        for child, (_, sender) in zip(children, pipes, strict=True):
            child.start()
            sender.close()  # the pipe must end when the child ends
        running = {receiver: number for number, (receiver, _) in enumerate(pipes)}
        while running:
            for ready in wait(list(running)):
                number = running[ready]  # pyright: ignore[reportArgumentType]  (`wait` returns the given receivers)
                message = _receive(ready, children[number])  # pyright: ignore[reportArgumentType]
                if isinstance(message, _TaskFailed):
                    raise ClickscoreError(message.error)
                if isinstance(message, _TaskProgressed):
                    progress[number] = message.progress
                    on_progress(progress)
                else:
                    results[number] = message.result
                    del running[ready]  # pyright: ignore[reportArgumentType]
        return [results[number] for number in range(len(tasks))]
    finally:
        for child in children:
            if child.pid:
                child.kill()
                child.join()


def _receive(receiver: "Connection[bytes, bytes]", child: BaseProcess) -> _TaskFailed | _TaskProgressed | _TaskFinished:
    try:
        return _decode(receiver.recv_bytes())
    except EOFError:
        child.join()
        message = f"a process of the replay died (exit code {child.exitcode}); resume the replay with --resume"
        raise WorkerDiedError(message) from None


def _run_child(task: ReplayTask, sender: "Connection[bytes, bytes]", parent: int) -> None:
    """Run a task in a child process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets the signal, too, and kills the children

    def on_progress(progress: ReplayProgress) -> None:
        if os.getppid() != parent:
            os._exit(1)  # the parent has died: nobody reads the result
        sender.send_bytes(_encode(_TaskProgressed(progress)))

    try:
        sender.send_bytes(_encode(_TaskFinished(run_task(task, on_progress))))
    except ClickscoreError as exc:
        sender.send_bytes(_encode(_TaskFailed(str(exc))))
