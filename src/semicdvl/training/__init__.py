"""Recipe -> parts -> one visible loop -> run directory."""
