"""What decides, counts and changes records: pure and synchronous, so that it runs in a simulation as well."""
