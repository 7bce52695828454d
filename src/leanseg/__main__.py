"""`python -m leanseg`, as launchers such as torchrun start it."""

from leanseg.cli.main import run

if __name__ == "__main__":
    run()
