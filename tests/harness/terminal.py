"""Runs a program on a terminal of its own and types into it.

Arguments: the program and its arguments. Standard input: a JSON list of steps `{"keys": .., "expect": ..}`; the keys of
each are typed, and what is expected must then appear, with the prompt after it unless the step says `"last": true`.
Standard output: all that the program showed, without control sequences. Exit code: that of the program, or 70 when
something did not appear in time, with the step on standard error.
"""

import fcntl
import json
import os
import pty
import re
import select
import struct
import sys
import termios
import time

LIMIT_SECONDS = 60
PROMPT = "alluvium> "
CONTROL = re.compile(r"\x1b\[[0-9;?>=]*[ -/]*[@-~]|\x1b\][^\x07]*\x07|\x1b[()][0-9A-B]|\x1b[78=>]|\r")


class Terminal:
    def __init__(self, command):
        self.raw = b""
        self.answered = 0
        self.child, self.handle = pty.fork()
        if self.child == 0:
            os.execvp(command[0], command)
        fcntl.ioctl(self.handle, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))

    def text(self):
        return CONTROL.sub("", self.raw.decode("utf-8", "replace"))

    def read(self):
        """Takes what there is; tells whether the program still runs."""
        if not select.select([self.handle], [], [], 0.1)[0]:
            return True
        try:
            chunk = os.read(self.handle, 65536)
        except OSError:
            return False
        self.raw += chunk
        # A line editor asks where the cursor is, and waits for the answer.
        asked = self.raw.count(b"\x1b[6n")
        while self.answered < asked:
            os.write(self.handle, b"\x1b[1;1R")
            self.answered += 1
        return bool(chunk)

    def wait_for(self, expected, since, needs_prompt):
        deadline = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < deadline:
            shown = self.text()[since:]
            at = shown.find(expected)
            if at >= 0 and (not needs_prompt or PROMPT in shown[at:]):
                return True
            if not self.read():
                return expected in self.text()[since:]
        return False


def main():
    steps = json.load(sys.stdin)
    terminal = Terminal(sys.argv[1:])
    for number, step in enumerate(steps):
        since = len(terminal.text())
        os.write(terminal.handle, step["keys"].encode())
        if not terminal.wait_for(step["expect"], since, not step.get("last", False)):
            sys.stdout.write(terminal.text())
            sys.stderr.write(f"step {number}: {step['expect']!r} did not appear after {step['keys']!r}\n")
            os.kill(terminal.child, 9)
            os.waitpid(terminal.child, 0)
            return 70
    deadline = time.monotonic() + LIMIT_SECONDS
    while terminal.read() and time.monotonic() < deadline:
        pass
    sys.stdout.write(terminal.text())
    return os.waitstatus_to_exitcode(os.waitpid(terminal.child, 0)[1])


sys.exit(main())
