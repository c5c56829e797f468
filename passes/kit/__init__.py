"""What every pass stands on: edits, the rule driver, the ledger, small questions about values."""
