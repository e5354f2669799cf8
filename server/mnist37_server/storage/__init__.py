"""The SQLite database, which holds everything that must survive a crash."""
