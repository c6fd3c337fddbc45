"""The configuration file: from YAML to a `Config`, or to what is wrong with it; its reload and its reference."""
