"""What commands beside `tailrace worker` do: explain, simulate, restore, resize, size, dead letters, connections."""
