"""A whole network's process, and servers that are not there."""

import os
import signal
import socket
import subprocess
import time

from node import NodeFailed

# Before Linux gives ports to outgoing connections (32768 to 60999).
BASE_PORT = 21_000


class Network:
    """`raida network` on this machine, some nodes left out; `with` ends it whatever happens."""

    def __init__(self, raida, folder, down=(), settings=()):
        self.raida, self.folder = raida, folder
        self.command = [raida, "network", "--dir", folder, "--base-port", str(BASE_PORT)]
        if down:
            self.command += ["--down", ",".join(map(str, down))]
        for setting in settings:
            self.command += ["--set", setting]
        self.log = f"{folder}.network.txt"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        give_up = time.monotonic() + 60
        while "nodes are ready" not in self._said():
            if time.monotonic() > give_up or self.process.poll() is not None:
                self.end()
                raise NodeFailed(f"the network did not start: {self._said()}")
            time.sleep(0.05)

    def data(self, raida):
        return os.path.join(self.folder, f"raida{raida}")

    def _said(self):
        with open(self.log) as log:
            return log.read()

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


class BlackHoles:
    """Ports that packets vanish at, as a firewall has them vanish: each is listened on by a socket
    whose queue is full, for which the kernel drops what asks for a connection."""

    def __init__(self, raidas):
        self.sockets = []
        for raida in raidas:
            address = ("127.0.0.1", BASE_PORT + raida)
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(0)
            self.sockets.append(listener)
            for _ in range(4):
                fill = socket.socket()
                fill.setblocking(False)
                fill.connect_ex(address)
                self.sockets.append(fill)
        time.sleep(0.1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for one in self.sockets:
            one.close()
