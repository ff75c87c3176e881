"""What people bring as samples, as the engine takes it."""
