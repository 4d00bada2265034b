"""``python -m retally.cli``, for where the console command is not on the PATH."""

from retally.cli.main import main

main(prog_name="retally")
