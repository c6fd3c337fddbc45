"""From an internal topic to a destination: queue, retries, what is settled, offsets."""
