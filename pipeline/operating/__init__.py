"""What operators ask for beside the flow: explain, simulate, restore, resize, size, dead letters, connections.

Commands do it; workers answer explain and restore themselves.
"""
