"""The tables of the database, each with its queries.

These modules begin and end no transaction: mnist37_server.storage.store does that, around a whole
commit.
"""
