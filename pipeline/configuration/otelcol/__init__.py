"""The parts of a Collector's configuration, and what each is here; pipeline/configuration/convert.py has the whole."""
