"""The entry point: `atom-sync`, and `python -m atom_saas_sync`, which is the same."""

import gc
import sys


def start() -> None:
    """Import and run the command line."""
    # Importing makes many objects and no garbage; a fifth of the start would go into looking for some.
    gc.disable()
    from atom_saas_sync.cli.main import run

    try:
        run()
    finally:
        # Nor is there any left when the process ends: the interpreter would look through all that it has.
        gc.freeze()


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the working directory, where others may have put modules of the names that we import
    start()
