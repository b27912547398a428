"""Convert each crash into a verified, recorded core, and retain what the settings allow."""
