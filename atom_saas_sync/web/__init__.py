"""`serve-health`: health, metrics and the admin API over HTTP."""
