"""The cellar: durable SQLite files of the agent. Knows nothing of agents, databases or backends.

Only the standard library is imported here, so a plain python3 can read an outbox.
"""
