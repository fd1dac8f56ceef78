# SPDX-License-Identifier: MIT
"""A Jupyter kernel for Marea: hands cells to `marea serve.lua`, its child, and shows what comes back. The child reads
requests from one pipe and writes replies to another (see serve.lua); its stdout and stderr are streams of the notebook.
An interrupt of the kernel becomes the child's Ctrl-C: everything that was made stays.
"""
import base64
import os
import select
import signal
import subprocess

from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel

SERVE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "serve.lua")
MIMES = {"text": "text/plain", "html": "text/html", "png": "image/png"}


class Child:
    """The program and its pipes."""

    def __init__(self):
        requests, self.requests = os.pipe()
        self.replies, replies = os.pipe()
        program = os.environ.get("MAREA_PROGRAM", "marea")
        # A session of its own: the kernel alone decides which interrupts reach it. What ipykernel ignores it does not.
        self.process = subprocess.Popen(
            [program, SERVE, str(requests), str(replies)], pass_fds=(requests, replies),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        os.close(requests)
        os.close(replies)  # then the end of the child is the end of the pipe
        self.reader = open(self.replies, "rb", buffering=0)  # so that select knows of all that is there
        self.streams = {self.process.stdout.fileno(): "stdout", self.process.stderr.fileno(): "stderr"}

    def send(self, kind, text):
        data = text.encode()
        data = f"{kind} {len(data)}\n".encode() + data
        while data:
            data = data[os.write(self.requests, data):]

    def receive(self):
        """The next reply: its kind and bytes. EOFError when the child has ended."""
        header = self.reader.readline().split()
        if len(header) != 2:
            raise EOFError
        data, n = b"", int(header[1])
        while len(data) < n and (more := self.reader.read(n - len(data))):
            data += more
        return header[0].decode(), data

    def ask(self, kind, text):
        self.send(kind, text)
        return self.receive()[1].decode()

    def written(self, seconds):
        """What stands in stdout and stderr, as (name, text) pairs; and whether there is a reply."""
        ready, _, _ = select.select([*self.streams, self.replies], [], [], seconds)
        pairs = []
        for fd in self.streams.keys() & set(ready):
            data = os.read(fd, 65536)
            if data:
                pairs.append((self.streams[fd], data.decode(errors="replace")))
            else:
                del self.streams[fd]  # closed
        return pairs, self.replies in ready

    def end(self):
        os.close(self.requests)
        self.reader.close()
        self.process.kill()
        self.process.wait()


class MareaKernel(Kernel):
    implementation = "marea"
    implementation_version = "0.1"
    banner = "Marea: neural networks scripted in Lua and computed in C"
    language_info = {"name": "lua", "version": "5.4", "mimetype": "text/x-lua", "file_extension": ".lua"}

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.child = Child()

    def stream(self, seconds):
        """Shows what the child wrote; is there a reply?"""
        pairs, replied = self.child.written(seconds)
        for name, text in pairs:
            self.send_response(self.iopub_socket, "stream", {"name": name, "text": text})
        return pairs, replied

    def run(self, code):
        """Shows results as they come; returns the message of an error, or None."""
        error, bundle = None, {}
        self.child.send("evaluate", code)
        while True:
            if not self.stream(None)[1]:
                continue
            while self.stream(0)[0]:  # what was written before the reply
                pass
            kind, data = self.child.receive()
            if kind == "done":
                return error
            if kind == "error":
                error = data.decode(errors="replace")
                continue
            bundle[MIMES[kind]] = base64.b64encode(data).decode() if kind == "png" else data.decode(errors="replace")
            if kind == "text":
                self.send_response(self.iopub_socket, "display_data", {"data": bundle, "metadata": {}})
                bundle = {}

    def do_execute(self, code, silent, store_history=True, user_expressions=None, allow_stdin=False, **_):
        before = signal.signal(signal.SIGINT, lambda *_: self.child.process.send_signal(signal.SIGINT))
        try:
            error = self.run(code)
        except (EOFError, BrokenPipeError):
            self.child.end()
            self.child = Child()
            error = "the program has ended; a new one is there, without what you had made"
        finally:
            signal.signal(signal.SIGINT, before)
        if error is None:
            return {"status": "ok", "execution_count": self.execution_count, "payload": [], "user_expressions": {}}
        content = {"ename": "error", "evalue": error.split("\n")[0], "traceback": error.split("\n")}
        self.send_response(self.iopub_socket, "error", content)
        return {"status": "error", "execution_count": self.execution_count, **content}

    def do_complete(self, code, cursor_pos):
        before = code[:cursor_pos].encode()
        start, *candidates = self.child.ask("complete", before.decode()).split("\n")
        return {"status": "ok", "matches": [c for c in candidates if c.strip()], "cursor_end": cursor_pos,
                "cursor_start": len(before[:int(start) - 1].decode()), "metadata": {}}

    def do_inspect(self, code, cursor_pos, detail_level=0, omit_sections=()):
        end = cursor_pos
        while end < len(code) and (code[end].isalnum() or code[end] == "_"):
            end += 1
        text = self.child.ask("inspect", code[:end])
        return {"status": "ok", "found": text != "", "data": {"text/plain": text}, "metadata": {}}

    def do_is_complete(self, code):
        return {"status": self.child.ask("is_complete", code), "indent": "  "}

    def do_shutdown(self, restart):
        self.child.end()
        return {"status": "ok", "restart": restart}


if __name__ == "__main__":
    IPKernelApp.launch_instance(kernel_class=MareaKernel)
