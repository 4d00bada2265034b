"""The database as a place: connections, errors, migrations, the embedded server, a farm to try on.

The routines that compute live in ``retally.procedures``; nothing here knows them.
"""
