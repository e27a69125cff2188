"""The entry point: `atom-sync`, and `python -m atom_saas_sync`, which is the same."""

import gc


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
    start()
