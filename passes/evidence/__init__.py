"""What a pass did, in numbers: graphs run before and after it, and compared."""
