"""The configuration: what may be said, where it is said, and what is wrong with it."""
