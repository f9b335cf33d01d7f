"""The residual rule, a level of change event generation beyond the paper: on arrays, and strip by strip."""
