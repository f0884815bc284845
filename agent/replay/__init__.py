"""Delivering the outbox of an agent that is no more: what is left of it, what became of it, and the run itself."""
