"""PostgreSQL: psycopg 3 natively on trio, and the worker that pools its connections."""
