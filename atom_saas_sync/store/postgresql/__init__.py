"""The store on a PostgreSQL server, which many hosts may share."""
