"""SQLite, through the standard library's driver, in one thread per connection."""
