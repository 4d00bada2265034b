"""The command ``retally`` and its subcommands."""

from __future__ import annotations

from importlib.metadata import version

import click

from retally.cli.bench import bench
from retally.cli.bench_admission import admission
from retally.cli.bench_dispatch import dispatch
from retally.cli.bench_recompute import recompute as bench_recompute
from retally.cli.demo import demo
from retally.cli.doctor import doctor
from retally.cli.drift import drift
from retally.cli.errors import TypedErrorGroup
from retally.cli.farm import farm
from retally.cli.grants import grants
from retally.cli.install import install
from retally.cli.journal import journal
from retally.cli.leases import leases
from retally.cli.ledger import ledger
from retally.cli.managed import managed
from retally.cli.output import print_anything
from retally.cli.prune import prune
from retally.cli.recompute import recompute
from retally.cli.settings import settings_command
from retally.cli.simulate import simulate_command
from retally.cli.status import status
from retally.cli.undo import undo
from retally.cli.uninstall import uninstall
from retally.cli.unmanaged import unmanaged
from retally.cli.watch import watch
from retally.cli.worker import worker


@click.group(
    cls=TypedErrorGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(version("retally"), prog_name="retally")
def main() -> None:
    """Exact resource totals for render farms on PostgreSQL.

    The database comes from --dsn, else RETALLY_DSN, else the settings file, else libpq's own PG…
    variables and service files. Exit codes: 0 fine, 1 error, 2 usage, 3 drift found, 5 rows left
    because they were busy.

    \b
    Example:
      retally install && retally drift && retally recompute --all && retally worker
    """
    print_anything()


for _command in (
    install,
    uninstall,
    doctor,
    grants,
    status,
    watch,
    drift,
    recompute,
    ledger,
    undo,
    managed,
    unmanaged,
    journal,
    leases,
    prune,
    worker,
    settings_command,
    demo,
    simulate_command,
    farm,
    bench,
):
    main.add_command(_command)

for _command in (dispatch, admission, bench_recompute):
    bench.add_command(_command)
