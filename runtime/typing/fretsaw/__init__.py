"""The package as links to its folders, for editors and type checkers: nothing is imported from here."""
