"""Numbers from prediction tables, with numpy and pandas only."""
