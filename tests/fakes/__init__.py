"""Hand-written stand-ins for what the agent talks to."""
