"""The statements of the migrations, by subject; store/sqlite/schema.py puts them in order."""
