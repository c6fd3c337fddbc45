"""The live page: what a worker does right now, in a browser or (`tailrace top`) in a terminal.

Roles feed a `Watch` after each commit; a `Snapshot` is what one worker says; a `View` is what is shown of several.
Without `telemetry.live` there is no Watch, and roles do nothing for it.
"""
