"""What needs a socket or a clock. The way of a span: ingest, sample (direct without an ingest), aggregate, deliver.

`roles` says which topics each of them reads and writes, `worker` runs them, `cli` has the commands beside it.
"""
