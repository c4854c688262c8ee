"""A node's process: started, looked at, and ended by its own id."""

import os
import re
import signal
import subprocess
import time


class NodeFailed(Exception):
    """The node did not start; the text holds what it said."""


class Node:
    """A running node; `with` ends it whatever happens."""

    def __init__(self, raida, folder, shards, cpus, settings=()):
        self.folder, self.shards, self.cpus = folder, shards, list(cpus)
        self.log = f"{folder}.serve.txt"
        self.command = [raida, "serve", "--data", folder, "--listen", "127.0.0.1:0"]
        self.command += ["--shards", str(shards), "--set", "shards.pin=true"]
        for setting in settings:
            self.command += ["--set", setting]
        self.process = None
        try:
            self._start()
        except BaseException:
            self.end(signal.SIGKILL)  # Nobody else knows of it yet.
            raise

    def _start(self):
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                self.command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                # All its threads, also those that are no executors, stay off the generator's CPU.
                preexec_fn=lambda: os.sched_setaffinity(0, self.cpus),
            )
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up and self.process.poll() is None:
            if self._said(r"ready in +(.*)"):
                self.address = self._said(r"listening on (\S+) ")
                return
            time.sleep(0.02)
        said = open(self.log).read()
        self.end(signal.SIGKILL)
        raise NodeFailed(f"the node did not start: {' '.join(self.command)}\n{said}")

    def _said(self, pattern):
        with open(self.log) as log:
            found = re.search(pattern, log.read())
        return found and found.group(1).strip()

    @property
    def pid(self):
        return self.process.pid

    def ready_ms(self):
        """How long the start took, by the node's own clock."""
        return float(self._said(r"ready in +([\d.]+) ms"))

    def recovered(self):
        return self._said(r"recovered +(.*)")

    def resident_bytes(self):
        with open(f"/proc/{self.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+) kB", status.read()).group(1)) * 1024

    def own_bytes(self):
        """Its part of memory, where what several processes share counts for each in part."""
        with open(f"/proc/{self.pid}/smaps_rollup") as maps:
            return int(re.search(r"Pss:\s+(\d+) kB", maps.read()).group(1)) * 1024

    def cpu_seconds(self):
        """On a CPU so far, all threads."""
        nanos = 0
        for thread in os.listdir(f"/proc/{self.pid}/task"):
            try:
                with open(f"/proc/{self.pid}/task/{thread}/schedstat") as stat:
                    nanos += int(stat.read().split()[0])
            except OSError:
                pass  # It has ended since.
        return nanos / 1e9

    def end(self, how=signal.SIGTERM):
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()
