"""What rests on plugins of Kinto: against the plugin itself where it is installed, and against our stand-in."""
