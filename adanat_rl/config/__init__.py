"""The typed configuration: schema, loading, errors, paths."""
