"""HTML pages, colours and charts, knowing nothing of what they show."""
