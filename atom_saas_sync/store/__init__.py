"""All SQL of the program: a room for each engine, and beside them what engines share."""
