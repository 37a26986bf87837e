"""What to do now, decided from facts alone: no clock, disk, network, log or chance in here."""
