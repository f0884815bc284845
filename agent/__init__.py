"""The collector agent: brings slow queries of a database to the DBPower backend, each of them once."""

__version__ = "1.0.0"
