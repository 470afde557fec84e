"""Any PEP 249 driver, each connection in a thread of its own."""
