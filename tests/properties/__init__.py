"""What holds for any data, any changes and any conditions."""
