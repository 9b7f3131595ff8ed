"""``python -m cafetal.cli`` is the command `cafetal`."""

from cafetal.cli import main

main()
