"""The command line. It reads study files and writes folders; settings of the science are in study files, not flags."""

from __future__ import annotations

import math
import sys
import traceback

from cyclopts import App, CycloptsError, Parameter

from sublevel._version import __version__
from sublevel.cli.doctor import doctor
from sublevel.cli.listing import ls
from sublevel.cli.plan import plan
from sublevel.cli.reports import compare, report
from sublevel.cli.run import measure, run
from sublevel.cli.status import status
from sublevel.cli.store import export, gc, take_in, verify
from sublevel.cli.tickets import ticket
from sublevel.errors import ModelError, SublevelError, check_working_folder
from sublevel.foreign import plain
from sublevel.memory import limit
from sublevel.presets import MINUTES

TIMES = ", ".join(f"{name} {minutes}" for name, minutes in MINUTES.items() if minutes)
LONG = " and ".join(name for name, minutes in MINUTES.items() if not minutes)

app = App(
    name="sublevel",
    version=__version__,
    help="Why winning tickets win: sparse subnetworks, dissected through the geometry of the loss landscape.",
    help_epilogue=f"Presets, with about their minutes on two idle cores: {TIMES}. On a GPU, in days: {LONG}.",
    default_parameter=Parameter(negative_iterable=()),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)

app.command(ticket)
for command in (verify, gc, export):
    app.command(command)
app.command(take_in, name="import")
app.register_install_completion_command()
for command in (run, plan, measure, report, compare, ls, status, doctor):
    app.command(command)


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Invalid input gives one sentence on standard error and exit code 2."""
    try:
        check_working_folder()
        code = app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        code = _refuse(" ".join(str(error).split()))
    except SublevelError as error:
        code = _refuse(str(error))
        if isinstance(error, ModelError) and error.__cause__ is not None:
            print(plain("".join(traceback.format_exception(error.__cause__))), end="", file=sys.stderr)
    except SystemExit as end:
        code = _refuse(f"code of your own ended the program: sys.exit({end.code!r})")
    except KeyboardInterrupt:
        print("\nstopped; nothing is lost: the same command resumes", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        sys.stderr.close()
        code = 1
    except MemoryError:
        code = _refuse("not enough memory")
    except (ImportError, SystemError, OSError) as error:
        code = _refuse(_of_system(error))
    sys.exit(code if isinstance(code, int) else 0)


def _of_system(error: ImportError | SystemError | OSError) -> str:
    """What to say of an OSError, and of a library that cannot be mapped within a limit of memory; raises other errors.

    The loader says the latter by an ImportError or an OSError.
    """
    library = not isinstance(error, OSError) or "shared object" in str(error)
    if library and limit() < math.inf:
        first = next(iter(str(error).split("\n")), "")
        return f"not enough memory in the {limit() / 2**20:,.0f} MiB of this process (ulimit): {first}"
    if not isinstance(error, OSError):
        raise error
    return f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")


def _refuse(sentence: str) -> int:
    print(f"sublevel: {plain(' '.join(sentence.split()))}", file=sys.stderr)
    return 2
