"""For development and demonstration: a backend that knows the whole protocol, a database, a story."""
