"""Migrations, in both of the ways that Django runs them: in a transaction, and outside of one."""
