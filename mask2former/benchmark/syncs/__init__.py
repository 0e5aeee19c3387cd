"""How often the host waits for the device."""
