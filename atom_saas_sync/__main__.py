"""The entry point: `atom-sync`, and `python -m atom_saas_sync`, which is the same."""

import gc
import sys


def start() -> None:
    """Import and run the command line."""
    # Importing creates many objects but no garbage; collecting would take a fifth of the start-up time.
    gc.disable()
    from atom_saas_sync.cli.main import run

    try:
        run()
    finally:
        # The same at exit, where the interpreter would traverse all objects.
        gc.freeze()


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the working directory, where others may have put modules with the names of our imports
    start()
