"""The only HTTP and WebSocket of the program."""
