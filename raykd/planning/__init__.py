"""What a run would ask of links, machines and time: bytes from a rehearsal, seconds from a few real steps."""
