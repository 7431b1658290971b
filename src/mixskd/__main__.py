"""``python -m mixskd``, and the command ``mixskd``."""

import atexit
import os
import signal
import sys
from typing import NoReturn

from mixskd.cli.main import main
from mixskd.errors.faults import show_unraisable


def run() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    code = 1
    sys.unraisablehook = show_unraisable
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # torch's communication threads may outlive their process group. If one of them wants the interpreter while it
        # is being taken down, the process aborts, and torchrun stops the others although the run is whole. Handlers
        # are called in reverse: this one, registered first, leaves after everybody else's and before that.
        atexit.register(lambda: _leave(code))
    try:
        code = main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done; Ctrl-C would interrupt Python's exit with a traceback
    sys.exit(code)


def _leave(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed by the shell
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
