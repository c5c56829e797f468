"""Reports for people: data of an artifact or a graph, as tables, DOT and one HTML page."""
