"""The rollout: a pure state machine over verdicts, its transitions, the controller, the status."""
