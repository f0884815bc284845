"""The measurements behind scripts/bench: one file for each thing that is measured."""
