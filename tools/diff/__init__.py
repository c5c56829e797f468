"""What differs between two programs, said by layer and module path."""
