"""What an operator sees of a worker: log, pages, limits as metrics; and what ends it when it does not get on."""
