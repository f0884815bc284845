"""What scripts/replay.py is made of; all but `meant` needs the packages of the agent."""
