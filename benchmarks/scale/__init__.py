"""Large tables: the sweeper beside a live load, the ready pages, and the audit trail."""
