"""The instance level of change event generation: objects are matched, merged over tiles, or found strip by strip."""
