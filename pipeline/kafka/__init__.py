"""How roles read and write Kafka: groups and leases, fetches, transactions, pace, topics, rights."""
