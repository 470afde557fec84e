"""Database clients, each with the server's URL (or SQLite's path), the number of connections and the statement.

Every one runs the statement outside a transaction and reads all its rows; each keeps its own defaults beyond that, and
prepares the statement if that is what it does.
"""
