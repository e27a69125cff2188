"""All HTTP and WebSocket traffic of the program."""

import sys

# httpx imports its own command line, and rich with it, wherever they are installed; that is a tenth of our start.
if "httpx" not in sys.modules:
    sys.modules["httpx._main"] = None  # type: ignore[assignment]  # the import system's sign for "there is none"
    import httpx  # noqa: F401

    del sys.modules["httpx._main"]
