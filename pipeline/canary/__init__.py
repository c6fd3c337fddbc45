"""A synthetic trace that is sent through everything and looked for at the ends: `tailrace canary`."""
