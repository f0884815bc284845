"""The parts of scripts/install-service. Nothing but Python is needed for them."""
