"""Data that ships with gradkern: a real trained network and real images."""
