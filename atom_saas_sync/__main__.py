"""`python -m atom_saas_sync` is `atom-sync`."""

from atom_saas_sync.cli.main import run

if __name__ == "__main__":
    run()
