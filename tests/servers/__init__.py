"""Real database servers for the tests. The servers themselves; what is asked of them stands in the tests."""
