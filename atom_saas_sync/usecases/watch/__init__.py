"""The real-time service, for months on its own: `service.py` joins the services that the other modules are.

One event loop waits for frames, the clock, signals and threads; it never waits for the disk. One thread writes:
batches of messages, and the state that others look at. Polling runs have a thread each.
"""
