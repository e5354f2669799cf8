"""The SQLite file: everything that must survive a crash."""
