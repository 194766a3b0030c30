"""Tables and figures from numbers; nothing is computed here that a metric could say."""
