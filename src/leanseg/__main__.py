"""`python -m leanseg`, as launchers such as torchrun start it."""

import os

# What torch's libraries say of connections that end is no news; leanseg says it in a sentence.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")

from leanseg.cli.main import run

if __name__ == "__main__":
    run()
