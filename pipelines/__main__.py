"""`recdistill`, and `python -m pipelines` where torchrun wants a module: the commands, and how errors leave them."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from cyclopts import App, CycloptsError, Group

from pipelines import (
    artifacts,
    commands,
    daily_commands,
    diagnose,
    labels,
    latency,
    methods,
    models,
    on_ray,
    serve,
    serving,
    tables,
    tools,
)
from pipelines.console import complain, only_results
from recdistill import __version__
from recdistill.errors import ConfigError

HELP = """Distil a large recommender into a small one that serves.

Every command takes --json, for one JSON object on stdout, and --debug, for the traceback of an error.
Exit codes: 0 done, 1 failed, 2 configuration or usage, 3 data, 4 refused by gates or limits, 5 artifact,
6 done, with an alarm (daily.alarms), 130 stopped.
"""

NO_NAME = (errno.ENAMETOOLONG, errno.ELOOP)

GROUPS: dict[str, dict[str, Callable[..., int]]] = {
    "Runs": {
        "check": commands.check,
        "plan": commands.plan,
        "plan-tables": tables.plan_tables,
        "run": commands.run,
        "backfill": daily_commands.backfill,
        "label": labels.label,
        "ray": on_ray.on_ray,
        "diagnose": diagnose.diagnose,
        "plan-serving": serving.plan_serving,
    },
    "Methods": {"methods": methods.methods, "sweep": methods.sweep},
    "Artifacts": {"show": artifacts.show, "report": artifacts.report, "verify": artifacts.verify}
    | {"latency": latency.latency},
    "Models": {"promote": models.promote, "rollback": models.rollback, "sign": models.sign, "serve": serve.serve},
    "Around them": {"doctor": tools.doctor, "import": tools.import_, "synth": tools.synth},
}

app = App(name="recdistill", help=HELP, version=__version__)
for _place, (_title, _commands) in enumerate(GROUPS.items()):
    _group = Group(_title, sort_key=_place)
    for _name, _command in _commands.items():
        app.command(_command, name=_name, group=_group)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; nothing but a result or one message is printed."""
    try:
        code = _call(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, head or a pager, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _call(words: list[str]) -> int:
    debug, as_json = "--debug" in words, "--json" in words
    words = [word for word in words if word != "--debug"]
    if not debug:  # torchrec and its kin announce their own future at import; nobody here can act on it
        warnings.simplefilter("ignore")
    try:
        with only_results() if as_json else contextlib.nullcontext():
            code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        return code if isinstance(code, int) else 0
    except CycloptsError as error:
        return complain(ConfigError(str(error), where="usage"), as_json=as_json, debug=debug)
    except BrokenPipeError:
        raise
    except OSError as error:
        named = error if error.errno not in NO_NAME else ConfigError(f"a path: {error.strerror}", where="usage")
        return complain(named, as_json=as_json, debug=debug)
    except (Exception, KeyboardInterrupt) as error:
        return complain(error, as_json=as_json, debug=debug)


if __name__ == "__main__":
    sys.exit(main())
