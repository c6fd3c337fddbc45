"""The subcommands of `tailrace`, one module each; pipeline/cli.py lists them."""
