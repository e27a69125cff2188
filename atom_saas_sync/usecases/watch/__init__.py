"""The real-time service, for months on its own: `service.py` runs the services of the other modules.

One event loop waits for frames, timers, signals and threads; it never waits for the disk. One thread writes batches of
messages and the state that other processes read. Each polling run has a thread of its own.
"""
