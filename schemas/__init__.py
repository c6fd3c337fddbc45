"""What bytes mean: OTLP as it is scanned, records between the roles, foreign formats, and what goes wrong with them."""
