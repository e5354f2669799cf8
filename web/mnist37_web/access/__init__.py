"""Who may call web, and how much a body may hold."""
