"""Random graphs, random damage, and what has to hold under both."""
