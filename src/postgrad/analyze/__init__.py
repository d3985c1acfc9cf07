"""What happened and why: verdicts, failure causes, bad cases."""
