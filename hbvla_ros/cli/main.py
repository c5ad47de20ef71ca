# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Entry point of the ``hbvla`` command."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence

from hbvla_ros import __version__
from hbvla_ros.errors import HbvlaError

# In the order of the help text: from a checkpoint to moving arms. Modules are imported only to
# build their parser; what is heavy is imported inside their ``run``.
_COMMANDS = (
    'quantize', 'info', 'act', 'replay', 'record-fixture', 'eval', 'demo', 'demos', 'train',
    'bench', 'soak', 'doctor',
)  # fmt: skip
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def build_parser() -> argparse.ArgumentParser:
    """The parser with one subcommand for each module of this package."""
    parser = argparse.ArgumentParser(
        prog='hbvla', description='Quantize a vision-language-action policy and run it on a robot.'
    )
    parser.add_argument('--version', action='version', version=__version__)
    subparsers = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name in _COMMANDS:
        module = importlib.import_module(f'hbvla_ros.cli.{name.replace("-", "_")}')
        module.add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; bad input and a refusing disk are one line and exit status 2."""
    options = build_parser().parse_args(arguments)
    try:
        status = int(options.run(options) or 0)
        # Here, not at exit, where an error could no longer be told.
        sys.stdout.flush()
        return status
    except HbvlaError as error:
        print(f'hbvla: error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('hbvla: interrupted', file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output (head, less) went away: nothing is wrong.
        _discard_output()
        return 0
    except OSError as error:
        place = error.filename or _place_of_nameless_error(error, options)
        print(f'hbvla: error: {place}: {error.strerror or error}', file=sys.stderr)
        return 2


def _place_of_nameless_error(error: OSError, options: argparse.Namespace) -> str:
    """What a write that failed without a file name (a full disk) was writing."""
    try:
        sys.stdout.flush()
    except OSError:
        _discard_output()
        return 'standard output'
    if getattr(options, 'out', None):
        return str(options.out)
    return 'standard output' if error.errno in _DISK_FULL else f'hbvla {options.command}'


def _discard_output() -> None:
    """Point stdout at nothing, or the interpreter complains when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == '__main__':
    sys.exit(main())
