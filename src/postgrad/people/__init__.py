"""People in a run: orders come in through a mailbox, the controller decides on them, and decisions are events."""
