"""A space looked at before it is searched."""
