"""Whether a trace is kept: evidence of its spans, policies, verdicts, rates and budgets, the window of a partition."""
