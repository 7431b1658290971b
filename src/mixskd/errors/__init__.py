"""UserError for what a person can correct, the exit code of a process, and (beside it) text made safe to show."""

import difflib
import os
import signal
import sys
from collections.abc import Callable, Iterable

from mixskd.errors.faults import foreseen, report_fault, say, show_traceback
from mixskd.errors.text import first_line as first_line
from mixskd.errors.text import shown


class UserError(Exception):
    """Bad input. The command line prints it on stderr and exits with code 2, without a traceback.

    ``rank`` is the rank of the process that it happened to, if the first process does not have the same error.
    """

    rank: int | None = None


MEANT = {"rate": "lr", "learning_rate": "lr"}  # usual names of settings that have another one here


def nearest(name: str, choices: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the closest of ``choices``, or the empty string if none is close.

    The last part of a dotted name says what it means. A choice with that part comes first (``optim.lr`` for ``lr``),
    then one with all its words (``data.image_size`` for ``data.size``), and then one that is spelled alike.
    """
    group, last = _parts(name)
    last = MEANT.get(last, last)
    best, found = (0, 0.0), ""
    for choice in (choice for choice in choices if choice != name):  # a key may be no flag of this verb
        own_group, own = _parts(choice)
        part, whole = (difflib.SequenceMatcher(None, a, b).ratio() for a, b in ((own, last), (choice, name)))
        near = group in ("", own_group) or whole >= 0.5
        if near and own == last:
            rank = 4, whole
        elif near and set(last.split("_")) <= set(own.split("_")):
            rank = 3, float(own_group == group)
        elif near and part >= 0.8:
            rank = 2, part
        else:
            alike = part if group and group == own_group else whole
            rank = int(alike >= 0.5), alike
        if rank[0] and rank > best:
            best, found = rank, choice
    return f"; did you mean {found!r}?" if found else ""


def _parts(name: str) -> tuple[str, str]:
    """The group of a setting's dotted name, and its last part."""
    group, _, last = name.lstrip("-").replace("-", "_").rpartition(".")
    return group, last


def unknown(kind: str, name: str, choices: Iterable[str]) -> UserError:
    """The error for a ``name`` that is not among the ``choices``; ``kind`` says what it names."""
    choices = sorted(choices)
    return UserError(f"unknown {kind} {shown(name)}{nearest(name, choices)}; choose from {', '.join(choices)}")


def check_positive(**values: float) -> None:
    """Raises UserError naming the first of ``values`` that is not above 0."""
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"{name} must be above 0, not {value}")


def exit_code(act: Callable[[], int | None], *, debug: bool = False) -> int:
    """The exit code of a process that runs ``act``.

    It is the code that ``act`` returns, 0 for None. It is 2 after one line on stderr for a UserError, or for what the
    machine lacks (space, memory, a permission, the network). It is 70 after one line for an unexpected error, whose
    traceback is written to a file, or shown with ``debug``. It is 130 after Ctrl-C, and 141 if the reader of the output
    has gone (``| head``). Of several processes, the first one prints the line of a UserError; another one adds its rank
    to an error that only it has, and to every error of another kind.
    """
    debug = debug or os.environ.get("MIXSKD_DEBUG", "") not in ("", "0")
    try:
        if sys.stdout is None:  # closed by the shell (>&-): what is printed has no reader
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        code = act() or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for the flush at the end of the interpreter
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 130
    except UserError as error:
        if debug:
            show_traceback(error)
        if error.rank is not None or _later_rank() is None:
            say(str(error), error.rank)
        return 2
    except Exception as error:
        line = foreseen(error)
        if line is None:
            return report_fault(error, debug=debug, rank=_later_rank())
        if debug:
            show_traceback(error)
        say(line, _later_rank())
        return 2


def _later_rank() -> int | None:
    """The rank of this process, if ``torchrun`` started it and it is not the first."""
    rank = os.environ.get("RANK", "")
    return int(rank) if rank.isdecimal() and int(rank) > 0 else None
