"""All code that knows Ray: the connection, the actors and the dispatch loop."""
