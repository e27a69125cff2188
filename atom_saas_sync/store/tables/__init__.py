"""The statements of the migrations, by subject; store/schema.py puts them in order."""
